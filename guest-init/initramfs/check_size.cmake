# Fails when FILE is missing or larger than LIMIT bytes.
if(NOT EXISTS ${FILE})
  message(FATAL_ERROR "${FILE} is not built")
endif()
file(SIZE ${FILE} bytes)
if(bytes GREATER LIMIT)
  message(FATAL_ERROR "${FILE} has ${bytes} bytes, at most ${LIMIT} are allowed")
endif()
message(STATUS "${FILE}: ${bytes} of ${LIMIT} bytes")
