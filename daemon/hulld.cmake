# hulld: the engine put together.
hull_library(hull_daemon real_parts.cc serve.cc
  PUBLIC hull_api
  PRIVATE hull_build hull_registry_client)
hull_program(hulld main.cc
  PRIVATE hull_daemon hull_engine_network CLI11::CLI11)
hull_program(hulld-fake testing/hulld_fake.cc PRIVATE hull_daemon hull_engine_testing)
set_target_properties(hulld-fake PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
