/* Copies of finite values, and answers; included by _native.c. */

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    Py_buffer out;
    PyObject *fallback;
    int dims;
    Py_ssize_t shape[8];
} Copier;

static PyObject *copier_vectorcall(PyObject *callable, PyObject *const *args, size_t nargs,
                                   PyObject *names) {
    Copier *self = (Copier *)callable;
    if (PyVectorcall_NARGS(nargs) != 1 || (names && PyTuple_GET_SIZE(names))) {
        PyErr_SetString(PyExc_TypeError, "a copy takes one array");
        return NULL;
    }
    Py_buffer from;
    if (PyObject_GetBuffer(args[0], &from, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0) {
        PyErr_Clear();
        return PyObject_CallOneArg(self->fallback, args[0]); /* says what is wrong with it */
    }
    int fits = from.format && !strcmp(from.format, "f") && from.ndim == self->dims;
    for (int i = 0; fits && i < from.ndim; i++) fits = from.shape[i] == self->shape[i];
    if (!fits || from.len != self->out.len) {
        PyBuffer_Release(&from);
        return PyObject_CallOneArg(self->fallback, args[0]);
    }
    const int finite = vectors->finite_copy(self->out.buf, from.buf, from.len / 4);
    PyBuffer_Release(&from);
    return PyBool_FromLong(finite);
}

static int copier_traverse(Copier *self, visitproc visit, void *arg) {
    Py_VISIT(self->out.obj);
    Py_VISIT(self->fallback);
    return 0;
}

static void copier_dealloc(Copier *self) {
    PyObject_GC_UnTrack(self);
    PyBuffer_Release(&self->out);
    Py_XDECREF(self->fallback);
    Py_TYPE(self)->tp_free(self);
}

static PyTypeObject CopierType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "dynrt.runtime.kernels._native.Copier",
    .tp_doc = "Copies an array's finite values into bound memory.",
    .tp_basicsize = sizeof(Copier),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Copier, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_traverse = (traverseproc)copier_traverse,
    .tp_dealloc = (destructor)copier_dealloc,
};

static PyObject *native_copier(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *out, *shape, *fallback;
    if (!PyArg_ParseTuple(args, "OO!O", &out, &PyTuple_Type, &shape, &fallback)) return NULL;
    const Py_ssize_t dims = PyTuple_GET_SIZE(shape);
    if (dims > 8) {
        PyErr_SetString(PyExc_ValueError, "more than eight axes");
        return NULL;
    }
    Copier *self = PyObject_GC_New(Copier, &CopierType);
    if (!self) return NULL;
    self->vectorcall = copier_vectorcall;
    self->fallback = Py_NewRef(fallback);
    memset(&self->out, 0, sizeof(Py_buffer));
    self->dims = (int)dims;
    Py_ssize_t count = 1;
    for (Py_ssize_t i = 0; i < dims; i++) {
        self->shape[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(shape, i));
        count *= self->shape[i];
    }
    PyObject_GC_Track(self);
    const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | PyBUF_WRITABLE;
    if (PyErr_Occurred() || PyObject_GetBuffer(out, &self->out, flags) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    if (!self->out.format || strcmp(self->out.format, "f") || self->out.len != count * 4) {
        PyErr_SetString(PyExc_ValueError, "the copy does not fit");
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* --- answers */

static PyObject *plain_answer; /* for what is no float32 array */

static PyObject *native_answer_of(PyObject *module, PyObject *array) {
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0) {
        PyErr_Clear();
        return PyObject_CallOneArg(plain_answer, array);
    }
    if (!view.format || strcmp(view.format, "f")) {
        PyBuffer_Release(&view);
        return PyObject_CallOneArg(plain_answer, array);
    }
    const float *x = view.buf;
    const Py_ssize_t n = view.len / 4;
    Py_ssize_t index = n ? 0 : -1;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (x[i] != x[i]) {
            index = -1;
            break;
        }
        if (x[i] > x[index]) index = i;
    }
    double score = NAN;
    if (index >= 0 && isfinite(x[index])) {
        double sum = 0;
        for (Py_ssize_t i = 0; i < n; i++) sum += exp((double)x[i] - x[index]);
        score = 1.0 / sum;
    }
    PyBuffer_Release(&view);
    return Py_BuildValue("nd", index, score);
}

static PyObject *native_set_plain_answer(PyObject *module, PyObject *function) {
    (void)module;
    Py_XSETREF(plain_answer, Py_NewRef(function));
    Py_RETURN_NONE;
}
