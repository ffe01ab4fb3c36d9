// What keeps the static program small. Linked into hull-init only.

namespace __gnu_cxx {

// Replaces the C++ library's terminate handler, which would bring the demangler and stdio along (a
// tenth of the program) to print the type of an exception that main catches anyway.
void __verbose_terminate_handler();
void __verbose_terminate_handler() {
  __builtin_trap();
}

}  // namespace __gnu_cxx
