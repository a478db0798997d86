/* The CPU backend in plain C: any machine. */
#include "kernels/lanes_portable.h"

#include "kernels/cpu_operators.h"

const kern_backend cpu_backend_portable = CPU_BACKEND(cpu_gemm, cpu_attention);
