# The ways this project makes a target. Every one gets the same warnings and sanitizers.
#
#   hull_library(NAME SOURCES… [PUBLIC libs…] [PRIVATE libs…])
#   hull_program(NAME SOURCES… [PRIVATE libs…])
#   hull_static_program(NAME SOURCES… [PRIVATE libs…])
#   hull_guest_program(NAME SOURCES…)               static, small, stripped, never sanitized or
#     instrumented: it runs in a guest as its only program
#   hull_test(NAME SOURCES… [PRIVATE libs…] [THREADS])   unit tests, label "unit", found by ctest;
#     with THREADS, of code that has threads: label "unit-threads", run with the thread sanitizer, too
#   hull_fuzzer(NAME SOURCES… [PRIVATE libs…] [CORPUS dir])
#     with HULL_FUZZ a libFuzzer program; otherwise a program that replays the corpus, as a test
#     with the label "fuzz". Both call LLVMFuzzerTestOneInput.

include(GoogleTest)

function(hull_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wshadow -Wconversion -Wnon-virtual-dtor
    -Wold-style-cast -Woverloaded-virtual -Werror)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC 12 reports false positives of these from inlined library code at -O2.
    target_compile_options(${target} PRIVATE -Wno-restrict -Wno-stringop-overflow
      -Wno-array-bounds -Wno-maybe-uninitialized -Wno-dangling-pointer -Wno-stringop-overread)
  endif()
  target_compile_definitions(${target} PRIVATE _FILE_OFFSET_BITS=64)
  target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR})
endfunction()

function(hull_flags target)
  hull_warnings(${target})
  if(HULL_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${HULL_SANITIZE} -fno-omit-frame-pointer
      -fno-sanitize-recover=all)
    target_link_options(${target} PRIVATE -fsanitize=${HULL_SANITIZE})
  else()
    target_compile_options(${target} PRIVATE -fstack-protector-strong)
    target_compile_definitions(${target} PRIVATE $<$<CONFIG:Release>:_FORTIFY_SOURCE=2>)
  endif()
  if(HULL_FUZZ)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
  if(HULL_COVERAGE)
    target_compile_options(${target} PRIVATE --coverage)
    target_link_options(${target} PRIVATE --coverage)
  endif()
endfunction()

function(hull_library name)
  cmake_parse_arguments(A "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(${name} STATIC ${A_SOURCES} ${A_UNPARSED_ARGUMENTS})
  hull_flags(${name})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${A_PUBLIC} PRIVATE ${A_PRIVATE})
endfunction()

function(hull_program name)
  cmake_parse_arguments(A "" "" "SOURCES;PRIVATE" ${ARGN})
  add_executable(${name} ${A_SOURCES} ${A_UNPARSED_ARGUMENTS})
  hull_flags(${name})
  target_link_libraries(${name} PRIVATE ${A_PRIVATE})
endfunction()

# Without sanitizers static (and position-independent): the program starts in half the time, touches
# less memory, and what it needs of the host is the kernel alone. Its libraries must be static, too.
function(hull_static_program name)
  hull_program(${name} ${ARGN})
  if(NOT HULL_SANITIZE AND NOT HULL_FUZZ AND NOT HULL_COVERAGE)
    target_link_options(${name} PRIVATE -static-pie)
    set_target_properties(${name} PROPERTIES HULL_STATIC ON)
  endif()
endfunction()

# libfmt, of which Debian has no static archive: a static program that links a library which uses
# this compiles fmt's functions itself.
set(HULL_SHARED_FMT "$<$<NOT:$<BOOL:$<TARGET_PROPERTY:HULL_STATIC>>>:fmt::fmt>")

function(hull_guest_program name)
  add_executable(${name} ${ARGN})
  hull_warnings(${name})
  target_compile_options(${name} PRIVATE -Os -g0 -ffunction-sections -fdata-sections
    -fno-asynchronous-unwind-tables -fstack-protector-strong -fno-sanitize=all)
  target_link_options(${name} PRIVATE -static -Wl,--gc-sections -Wl,--build-id=none -s)
endfunction()

function(hull_test name)
  cmake_parse_arguments(A "THREADS" "" "SOURCES;PRIVATE" ${ARGN})
  add_executable(${name} ${A_SOURCES} ${A_UNPARSED_ARGUMENTS})
  hull_flags(${name})
  set(label unit)
  if(A_THREADS)
    set(label unit-threads)
    set_property(GLOBAL APPEND PROPERTY HULL_THREADED_TESTS ${name})
  endif()
  # What is tested is optimized; the tests themselves compile in half the time without.
  target_compile_options(${name} PRIVATE "$<$<CONFIG:Release>:-O0;-U_FORTIFY_SOURCE>")
  target_link_libraries(${name} PRIVATE ${A_PRIVATE} GTest::gmock GTest::gtest_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST PROPERTIES LABELS ${label} TIMEOUT 300)
endfunction()

function(hull_fuzzer name)
  cmake_parse_arguments(A "" "CORPUS" "SOURCES;PRIVATE" ${ARGN})
  if(HULL_FUZZ)
    add_executable(${name} ${A_SOURCES} ${A_UNPARSED_ARGUMENTS})
    hull_flags(${name})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(${name} ${A_SOURCES} ${A_UNPARSED_ARGUMENTS}
      ${CMAKE_SOURCE_DIR}/tests/fuzz/replay_main.cc)
    hull_flags(${name})
    add_test(NAME fuzz.${name} COMMAND ${name} ${CMAKE_CURRENT_SOURCE_DIR}/${A_CORPUS})
    set_tests_properties(fuzz.${name} PROPERTIES LABELS fuzz TIMEOUT 300)
  endif()
  target_link_libraries(${name} PRIVATE ${A_PRIVATE})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
  set_property(GLOBAL APPEND PROPERTY HULL_FUZZERS
    "${name}=${CMAKE_CURRENT_SOURCE_DIR}/${A_CORPUS}")
endfunction()
