# hulld: the engine put together.
hull_library(hull_daemon real_parts.cc serve.cc
  PUBLIC hull_api
  PRIVATE hull_build hull_registry_client hull_tls)
hull_program(hulld main.cc
  PRIVATE hull_daemon hull_engine_network CLI11::CLI11)
hull_program(hulld-fake testing/hulld_fake.cc PRIVATE hull_daemon hull_engine_testing)
set_target_properties(hulld-fake PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)

# Real Docker clients against it; skipped, and said so, where there are none.
add_test(NAME docker_clients
  COMMAND ${CMAKE_SOURCE_DIR}/tests/interop/fake/docker_clients.sh $<TARGET_FILE:hulld-fake>)
set_tests_properties(docker_clients PROPERTIES LABELS interop SKIP_RETURN_CODE 77 TIMEOUT 600)
foreach(version 1 2)
  add_test(NAME compose_${version}
    COMMAND ${CMAKE_SOURCE_DIR}/tests/interop/fake/compose.sh $<TARGET_FILE:hulld-fake> ${version})
  set_tests_properties(compose_${version} PROPERTIES LABELS interop SKIP_RETURN_CODE 77 TIMEOUT 900)
endforeach()

# The ways to an engine, and the command's own face.
add_test(NAME engine_access
  COMMAND ${CMAKE_SOURCE_DIR}/tests/interop/fake/access.sh $<TARGET_FILE:hulld-fake> ${CMAKE_BINARY_DIR}/bin/hull)
set_tests_properties(engine_access PROPERTIES LABELS interop TIMEOUT 600)
foreach(client "bookworm docker.io" "trixie docker-cli")
  separate_arguments(client)
  list(GET client 0 release)
  add_test(NAME docker_clients_${release}
    COMMAND ${CMAKE_SOURCE_DIR}/tests/interop/fake/docker_release.sh $<TARGET_FILE:hulld-fake> ${client})
  set_tests_properties(docker_clients_${release} PROPERTIES LABELS interop SKIP_RETURN_CODE 77 TIMEOUT 900)
endforeach()

# What many containers leave behind, in small; scripts/bench soak is the big one.
add_test(NAME engine_soak
  COMMAND ${CMAKE_SOURCE_DIR}/tests/interop/fake/soak.sh $<TARGET_FILE:hulld-fake> 60 10)
set_tests_properties(engine_soak PROPERTIES LABELS interop TIMEOUT 600)
