# The CUDA backend, twice from the same sources: libtroupe_cuda.so by nvcc where there is one, for GPUs;
# libtroupe_cuda_host.so by the host's C++ compiler, which runs every kernel without a GPU (kernels/cuda/host/). Both
# are opened at run time; nothing links them.
include(CheckLanguage)
file(GLOB cuda_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/*/*.cu)

check_language(CXX)
if(CMAKE_CXX_COMPILER)
  enable_language(CXX)
  set(host_sources ${cuda_sources})
  list(FILTER host_sources EXCLUDE REGEX "/cuda/matmul\\.cu$")
  set_source_files_properties(${host_sources} PROPERTIES LANGUAGE CXX)
  file(GLOB shim_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cuda/host/*.cpp)
  add_library(troupe_cuda_host MODULE ${host_sources} ${shim_sources})
  target_include_directories(troupe_cuda_host PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/kernels/cuda/host)
  # Beside the program, where it is looked for.
  set_target_properties(troupe_cuda_host PROPERTIES CXX_STANDARD 17 CXX_EXTENSIONS ON CXX_VISIBILITY_PRESET hidden
                        LIBRARY_OUTPUT_DIRECTORY ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
  # Set anew: the directory's options hold warnings that exist for C alone.
  set_property(TARGET troupe_cuda_host PROPERTY
               COMPILE_OPTIONS -O2 -Wall -Wextra -Werror -fno-strict-aliasing -ffp-contract=off)
  if(TROUPE_SANITIZE)
    target_compile_options(troupe_cuda_host PRIVATE -fsanitize=${TROUPE_SANITIZE} -fno-omit-frame-pointer
                           -fno-sanitize-recover=all)
  endif()
endif()

find_program(TROUPE_NVCC nvcc HINTS /usr/local/cuda/bin)
if(TROUPE_CUDA AND TROUPE_NVCC AND CMAKE_CXX_COMPILER)
  get_filename_component(cuda_root ${TROUPE_NVCC} REALPATH)
  get_filename_component(cuda_root ${cuda_root}/../.. ABSOLUTE)
  find_library(TROUPE_CUBLASLT cublasLt HINTS ${cuda_root}/lib64)
endif()
if(TROUPE_CUDA AND TROUPE_NVCC AND TROUPE_CUBLASLT)
  # Machine code for A100 and H100, PTX for what comes after. -fmad=false: only written contractions are made.
  set(nvcc_flags -std=c++17 -O3 -fmad=false -Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra -Werror=all-warnings
      -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90,code=[sm_90,compute_90])
  set(cuda_objects)
  foreach(source ${cuda_sources})
    get_filename_component(name ${source} NAME_WE)
    get_filename_component(folder ${source} DIRECTORY)
    get_filename_component(folder ${folder} NAME)
    set(object ${CMAKE_BINARY_DIR}/cuda/${folder}_${name}.o)
    add_custom_command(OUTPUT ${object}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/cuda
      COMMAND ${TROUPE_NVCC} ${nvcc_flags} -I${CMAKE_SOURCE_DIR} -MD -MF ${object}.d -c ${source} -o ${object}
      DEPENDS ${source} DEPFILE ${object}.d COMMENT "nvcc ${folder}/${name}.cu" VERBATIM)
    list(APPEND cuda_objects ${object})
  endforeach()
  set(cuda_library ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/libtroupe_cuda.so)
  add_custom_command(OUTPUT ${cuda_library}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}
    COMMAND ${TROUPE_NVCC} -shared --cudart=static ${cuda_objects} ${TROUPE_CUBLASLT} -o ${cuda_library}
    DEPENDS ${cuda_objects} COMMENT "link libtroupe_cuda.so" VERBATIM)
  add_custom_target(troupe_cuda ALL DEPENDS ${cuda_library})
  message(STATUS "CUDA backend: ${TROUPE_NVCC}")
else()
  message(STATUS "CUDA backend: none (TROUPE_CUDA off, or no nvcc and cuBLASLt)")
endif()

# Tests open the libraries by path, which CMake cannot see. Called when all targets exist.
function(cuda_tests)
  if(NOT TARGET troupe_cuda_host)
    return()
  endif()
  add_executable(test_fibers_in_cuda_host ${CMAKE_SOURCE_DIR}/tests/unit/kernels/cuda_host/test_fibers.cpp
                 ${CMAKE_SOURCE_DIR}/kernels/cuda/host/fibers.cpp)
  target_include_directories(test_fibers_in_cuda_host PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/kernels/cuda/host)
  set_target_properties(test_fibers_in_cuda_host PROPERTIES CXX_STANDARD 17 CXX_EXTENSIONS ON)
  get_target_property(options troupe_cuda_host COMPILE_OPTIONS)
  set_property(TARGET test_fibers_in_cuda_host PROPERTY COMPILE_OPTIONS ${options})
  add_test(NAME unit/kernels/cuda_host/test_fibers COMMAND test_fibers_in_cuda_host)
  set_tests_properties(unit/kernels/cuda_host/test_fibers PROPERTIES TIMEOUT 60 LABELS unit)
  add_dependencies(unit_programs test_fibers_in_cuda_host)
  if(TARGET test_cuda_operators_in_kernels)
    add_dependencies(test_cuda_operators_in_kernels troupe_cuda_host)
  endif()
  if(TARGET test_operators_in_kernels)
    add_dependencies(test_operators_in_kernels troupe_cuda_host)
  endif()
endfunction()
cmake_language(DEFER DIRECTORY ${CMAKE_SOURCE_DIR} CALL cuda_tests)
