// Runs CUDA kernels on the CPU, for tests: every thread of a block is a fiber, one block at a time.
//
// A fiber runs until a barrier. The order in which fibers and blocks run is the test's choice (0 up,
// 1 down, else shuffled by that seed), so what depends on it, as on real hardware it would now and
// then, gives other results for another order: a missing barrier, an atomic sum of floats.
// Shared memory is full of NaN when a block begins. A barrier at which not all threads arrive is an
// error. What lies outside of arrays is for the caller to watch.
#pragma once
#include <math.h>  // the C++ one: exp and others are overloaded for float, as in CUDA
#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#define __global__
#define __device__ static
#define __shared__ static __attribute__((section("cuda_shared")))

struct Index {
  unsigned x, y, z;
};
static Index threadIdx, blockIdx;

extern "C" char __start_cuda_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_cuda_shared[] __attribute__((weak, visibility("hidden")));

namespace cpu {

enum State { READY, WAITING, DONE };

struct Fiber {
  jmp_buf here;
  ucontext_t start;
  bool started;
  State state;
  int line;  // of the barrier where it waits
};

const size_t STACK = 1 << 16;
static std::vector<Fiber> fibers;
static jmp_buf scheduler;
static unsigned current;
static void (*body)(const void *);
static const void *kernel_and_arguments;
static char error[256];

// Back to the scheduler; returns when this fiber is called again.
__attribute__((noinline)) static void leave(State state, int line) {
  Fiber &fiber = fibers[current];
  fiber.state = state;
  fiber.line = line;
  if (!_setjmp(fiber.here)) _longjmp(scheduler, 1);
}

static void run_for_ever() {  // a fiber is used again by later blocks
  for (;;) {
    body(kernel_and_arguments);
    leave(DONE, 0);
  }
}

__attribute__((noinline)) static void call(unsigned thread) {
  current = thread;
  threadIdx = {thread, 0, 0};
  Fiber &fiber = fibers[thread];
  if (_setjmp(scheduler)) return;
  if (fiber.started) _longjmp(fiber.here, 1);
  fiber.started = true;
  setcontext(&fiber.start);
}

static void make_fibers(unsigned n) {
  const size_t old = fibers.size();
  if (old >= n) return;
  fibers.resize(n);  // none is running, so they may move
  for (size_t i = old; i < n; i++) {
    ucontext_t &start = fibers[i].start;
    fibers[i].started = false;
    getcontext(&start);
    start.uc_stack.ss_sp = malloc(STACK);
    start.uc_stack.ss_size = STACK;
    start.uc_link = nullptr;
    makecontext(&start, run_for_ever, 0);
  }
}

static bool run_block(const std::vector<unsigned> &order) {
  if (__start_cuda_shared) memset(__start_cuda_shared, 0xff, __stop_cuda_shared - __start_cuda_shared);
  for (unsigned thread : order) fibers[thread].state = READY;
  for (;;) {
    for (unsigned thread : order) call(thread);
    const Fiber &first = fibers[order[0]];
    for (unsigned thread : order) {
      const Fiber &fiber = fibers[thread];
      if (fiber.state == first.state && fiber.line == first.line) continue;
      snprintf(error, sizeof error,
               "divergent barrier: thread %u waits at line %d and thread %u at line %d (0: it is done)",
               order[0], first.line, thread, fiber.line);
      for (unsigned other : order) fibers[other].started = false;  // their stacks are given up
      fibers.clear();
      return false;
    }
    if (first.state == DONE) return true;
  }
}

static void shuffle(std::vector<unsigned> &order, unsigned &state) {
  for (size_t i = order.size(); i > 1; i--) {
    state = state * 1664525 + 1013904223;  // Numerical Recipes
    std::swap(order[i - 1], order[(state >> 8) % i]);
  }
}

template <class Kernel>
static const char *launch(unsigned columns, unsigned rows, unsigned threads, unsigned seed,
                          const Kernel &kernel) {
  make_fibers(threads);
  body = [](const void *given) { (*static_cast<const Kernel *>(given))(); };
  kernel_and_arguments = &kernel;
  error[0] = 0;
  std::vector<unsigned> order(threads), blocks(columns * rows);
  for (unsigned i = 0; i < threads; i++) order[i] = seed == 1 ? threads - 1 - i : i;
  for (unsigned i = 0; i < blocks.size(); i++) blocks[i] = seed == 1 ? blocks.size() - 1 - i : i;
  unsigned random = seed;
  if (seed > 1) shuffle(blocks, random);
  for (unsigned block : blocks) {
    if (seed > 1) shuffle(order, random);
    blockIdx = {block % columns, block / columns, 0};
    if (!run_block(order)) break;
  }
  return error;
}

}  // namespace cpu

#define __syncthreads() cpu::leave(cpu::WAITING, __LINE__)

template <class T>
static T atomicAdd(T *place, T value) {
  T old = *place;
  *place += value;
  return old;
}

// sin and cos of pi a: quarter turns are taken off exactly, so that zeros are where they are.
static void sincospi(double a, double *sine, double *cosine) {
  const double quarter = floor(2 * a + 0.5), rest = M_PI * (a - quarter / 2);
  const double s = sin(rest), c = cos(rest);
  switch ((int)quarter & 3) {
    case 0: *sine = s, *cosine = c; break;
    case 1: *sine = c, *cosine = -s; break;
    case 2: *sine = -s, *cosine = -c; break;
    default: *sine = -c, *cosine = s;
  }
}

static void sincospi(float a, float *sine, float *cosine) {
  double s, c;
  sincospi((double)a, &s, &c);
  *sine = (float)s, *cosine = (float)c;
}
