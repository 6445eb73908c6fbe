/* Kernels for small nodes and decisions, and the loop that follows hops.
 *
 * Twin of plain.py and hop.py, whose docstrings say what each part means. Everything is bound once:
 * a Kernel keeps its memory alive and knows the C function that runs on it, so that the loop calls it
 * without a Python call. Offsets of programs were checked in Python and are checked here again.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>

#define PANEL 16
#define TILE 64
#define MAX_FLOATS (1 << 22)
#define FAILED INT64_MIN /* with a Python exception set */
#define NEAR (-1)
#define NOT_A_NUMBER (-2)

enum {
    COPY, NEG, EXP, SQRT, RELU, SIGMOID, TANH, CLIP, SOFTMAX, ADD, SUB, MUL, DIV, MAX, MIN,
    REDUCE_MAX, REDUCE_SUM, REDUCE_MEAN, CONCAT, LINEAR, LSTM, KINDS
};

typedef struct Kernel Kernel;
typedef int64_t (*Run)(Kernel *);

struct Kernel {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    Run run;
    int decides; /* whether what it returns is an outcome */
    int views;
    Py_buffer *view;
    void *state;
    PyObject *fallback; /* a Python function for what C leaves open */
};

typedef struct {
    int kind, m, n, panels, an, bn;
    float low, high;
    float *out;
    const float *a, *b, *c, *packed, *memory;
    const int32_t *regions;
} Op;

typedef struct {
    void *to;
    const void *from;
    size_t bytes;
} Copy;

typedef struct {
    int loads, stores, operations;
    Copy *copies;
    Op *ops;
} ProgramState;

typedef struct {
    const void *source;
    float *out;
    int channels, pixels, row;
    float factor, offset;
} PoolState;

typedef struct {
    Run program, pool_planes, pool_blocks16, pool_blocks8, pool_float, pool_uint8, pool_int8;
    int (*finite_copy)(float *, const float *, Py_ssize_t);
} Vectors;

#ifdef __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define HAS_SHUFFLE 1
#endif
#endif
#ifndef HAS_SHUFFLE
#define HAS_SHUFFLE 0
#endif

#define EACH(v) _Pragma("GCC unroll 4") for (int v = 0; v < NV; v++)

/* --- vector loops, for what every processor of this kind has, and for what better ones have */

#define W 4
#define FN(name) name##_base
#include "_native_vector.h"
#undef W
#undef FN

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAS_WIDER 1
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define W 8
#define FN(name) name##_avx2
#include "_native_vector.h"
#undef W
#undef FN
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,prefer-vector-width=512")
#endif
#define W 16
#define FN(name) name##_avx512
#include "_native_vector.h"
#undef W
#undef FN
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

static const Vectors *vectors = &vectors_base;
static const char *simd = "base";

static void choose_vectors(const char *wanted) {
#ifdef HAS_WIDER
    __builtin_cpu_init();
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const int avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                       __builtin_cpu_supports("avx512bw");
    if (avx512 && (!wanted || !strcmp(wanted, "avx512"))) {
        vectors = &vectors_avx512;
        simd = "avx512";
    } else if (avx2 && (!wanted || strcmp(wanted, "base"))) {
        vectors = &vectors_avx2;
        simd = "avx2";
    }
#else
    (void)wanted;
#endif
}

/* --- Kernel */

static PyObject *kernel_result(Kernel *self, int64_t outcome) {
    if (outcome == FAILED) return NULL;
    if (!self->decides) Py_RETURN_NONE;
    return PyLong_FromLongLong(outcome);
}

static PyObject *kernel_vectorcall(PyObject *callable, PyObject *const *args, size_t nargs,
                                   PyObject *names) {
    (void)args;
    Kernel *self = (Kernel *)callable;
    if (PyVectorcall_NARGS(nargs) != 0 || (names && PyTuple_GET_SIZE(names))) {
        PyErr_SetString(PyExc_TypeError, "a kernel takes no arguments");
        return NULL;
    }
    return kernel_result(self, self->run(self));
}

static int kernel_traverse(Kernel *self, visitproc visit, void *arg) {
    for (int i = 0; i < self->views; i++) Py_VISIT(self->view[i].obj);
    Py_VISIT(self->fallback);
    return 0;
}

static void kernel_dealloc(Kernel *self) {
    PyObject_GC_UnTrack(self);
    for (int i = 0; i < self->views; i++) PyBuffer_Release(&self->view[i]);
    PyMem_Free(self->view);
    free(self->state);
    Py_XDECREF(self->fallback);
    Py_TYPE(self)->tp_free(self);
}

static PyTypeObject KernelType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "dynrt.runtime.kernels._native.Kernel",
    .tp_doc = "A function of no arguments, bound to memory.",
    .tp_basicsize = sizeof(Kernel),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Kernel, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_traverse = (traverseproc)kernel_traverse,
    .tp_dealloc = (destructor)kernel_dealloc,
};

/* state: of so many bytes, zeroed, aligned to 64; views: how many buffers may be taken. */
static Kernel *new_kernel(size_t state, int views, int decides) {
    Kernel *self = PyObject_GC_New(Kernel, &KernelType);
    if (!self) return NULL;
    self->vectorcall = kernel_vectorcall;
    self->run = NULL;
    self->decides = decides;
    self->views = 0;
    self->view = PyMem_Calloc(views ? views : 1, sizeof(Py_buffer));
    self->state = NULL;
    self->fallback = NULL;
    void *memory = NULL;
    if (posix_memalign(&memory, 64, (state + 127) / 64 * 64) == 0) {
        self->state = memory;
        memset(memory, 0, state);
    }
    PyObject_GC_Track(self);
    if (!self->view || !self->state) {
        Py_DECREF(self);
        PyErr_NoMemory();
        return NULL;
    }
    return self;
}

/* The memory of an array of n elements of a dtype's one-letter format; NULL with an exception. */
static void *take_view(Kernel *self, PyObject *array, const char *formats, Py_ssize_t n, int write) {
    Py_buffer *view = &self->view[self->views];
    const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (write ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(array, view, flags) < 0) return NULL;
    self->views++;
    const char *format = view->format ? view->format : "B";
    if (strlen(format) != 1 || !strchr(formats, format[0]) ||
        (n >= 0 && view->len / view->itemsize != n)) {
        PyErr_Format(PyExc_ValueError, "%zd elements of format '%s' do not fit",
                     view->len / view->itemsize, format);
        return NULL;
    }
    return view->buf;
}

/* --- pools */

static PyObject *native_pool(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *source, *out;
    int channels, pixels, row;
    double factor, offset;
    if (!PyArg_ParseTuple(args, "OOiiidd", &source, &out, &channels, &pixels, &row, &factor,
                          &offset))
        return NULL;
    if (channels < 1 || pixels < 1 || row < 1 || pixels > MAX_FLOATS || row > MAX_FLOATS ||
        channels > MAX_FLOATS) {
        PyErr_SetString(PyExc_ValueError, "a pool of no size");
        return NULL;
    }
    Kernel *self = new_kernel(sizeof(PoolState), 2, 0);
    if (!self) return NULL;
    PoolState *s = self->state;
    const Py_ssize_t blocks = (channels + (Py_ssize_t)row - 1) / row;
    s->source = take_view(self, source, "fBb", blocks * row * pixels, 0);
    s->out = s->source ? take_view(self, out, "f", channels, 1) : NULL;
    if (!s->out) {
        Py_DECREF(self);
        return NULL;
    }
    s->channels = channels;
    s->pixels = pixels;
    s->row = row;
    s->factor = (float)factor;
    s->offset = (float)offset;
    const char format = self->view[0].format[0];
    if (format == 'B') self->run = vectors->pool_uint8;
    else if (format == 'b') self->run = vectors->pool_int8;
    else if (row == 1) self->run = vectors->pool_planes;
    else if (row == 8) self->run = vectors->pool_blocks8;
    else if (row == PANEL || (row % PANEL == 0 && row == channels))
        self->run = vectors->pool_blocks16;
    else self->run = vectors->pool_float;
    return (PyObject *)self;
}

#include "_native_copy.h"
#include "_native_decision.h"
#include "_native_hop.h"
#include "_native_program.h"

/* --- module */

static PyObject *native_choose_simd(PyObject *module, PyObject *name) {
    (void)module;
    const char *wanted = name == Py_None ? NULL : PyUnicode_AsUTF8(name);
    if (!wanted && name != Py_None) return NULL;
    vectors = &vectors_base;
    simd = "base";
    choose_vectors(wanted);
    return PyUnicode_FromString(simd);
}

static PyMethodDef methods[] = {
    {"pool", native_pool, METH_VARARGS, "Bind a global average pool."},
    {"program", native_program, METH_VARARGS, "Bind a program."},
    {"decision", native_decision, METH_VARARGS, "Bind a decision."},
    {"copier", native_copier, METH_VARARGS, "Bind a copy."},
    {"answer_of", native_answer_of, METH_O, "Index of the highest value and its probability."},
    {"set_plain_answer", native_set_plain_answer, METH_O, "What answers for other arrays."},
    {"choose_simd", native_choose_simd, METH_O, "Kernels bound from now on use this set, if the "
                                                "processor has it; None: the best. Gives the set."},
    {"follow", (PyCFunction)(void (*)(void))native_follow, METH_FASTCALL, "Run hops."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "Kernels for small nodes and decisions, and the loop that follows hops.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__native(void) {
    if (PyType_Ready(&KernelType) < 0 || PyType_Ready(&CopierType) < 0 || PyType_Ready(&HopType) < 0)
        return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (!module) return NULL;
    choose_vectors(NULL);
    if (PyModule_AddObjectRef(module, "Hop", (PyObject *)&HopType) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
