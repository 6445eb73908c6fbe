/* Hops and the loop that follows them; included by _native.c, twin of hop.py. */

typedef struct {
    PyObject_HEAD
    PyObject *runs;    /* tuple of (function, argument) */
    PyObject *kernels; /* tuple of functions without arguments */
    PyObject *decide;  /* None or a function without arguments */
    PyObject *next;    /* list of Hop or None */
    int64_t macs, need_macs;
    PyObject *weak;
} Hop;

static PyTypeObject HopType;

static PyObject *hop_new(PyTypeObject *type, PyObject *args, PyObject *names) {
    if (PyTuple_GET_SIZE(args) || (names && PyDict_GET_SIZE(names))) {
        PyErr_SetString(PyExc_TypeError, "Hop() takes no arguments");
        return NULL;
    }
    Hop *self = (Hop *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->runs = PyTuple_New(0);
    self->kernels = PyTuple_New(0);
    self->decide = Py_NewRef(Py_None);
    self->next = PyList_New(0);
    if (!self->runs || !self->kernels || !self->next) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int hop_traverse(Hop *self, visitproc visit, void *arg) {
    Py_VISIT(self->runs);
    Py_VISIT(self->kernels);
    Py_VISIT(self->decide);
    Py_VISIT(self->next);
    return 0;
}

static int hop_clear(Hop *self) {
    Py_CLEAR(self->runs);
    Py_CLEAR(self->kernels);
    Py_CLEAR(self->decide);
    Py_CLEAR(self->next);
    return 0;
}

static void hop_dealloc(Hop *self) {
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, hop_dealloc)
    if (self->weak) PyObject_ClearWeakRefs((PyObject *)self);
    hop_clear(self);
    Py_TYPE(self)->tp_free(self);
    Py_TRASHCAN_END
}

static PyObject *kept(PyObject *value) { return Py_NewRef(value ? value : Py_None); }

static int refuse(const char *what) {
    PyErr_SetString(PyExc_TypeError, what);
    return -1;
}

static PyObject *hop_get_runs(Hop *self, void *closure) { (void)closure; return kept(self->runs); }
static PyObject *hop_get_kernels(Hop *self, void *closure) { (void)closure; return kept(self->kernels); }
static PyObject *hop_get_decide(Hop *self, void *closure) { (void)closure; return kept(self->decide); }
static PyObject *hop_get_next(Hop *self, void *closure) { (void)closure; return kept(self->next); }

static int hop_set_runs(Hop *self, PyObject *value, void *closure) {
    (void)closure;
    if (!value || !PyTuple_CheckExact(value)) return refuse("Hop.runs is a tuple");
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); i++) {
        PyObject *run = PyTuple_GET_ITEM(value, i);
        if (!PyTuple_CheckExact(run) || PyTuple_GET_SIZE(run) != 2)
            return refuse("Hop.runs is a tuple of pairs");
    }
    Py_XSETREF(self->runs, Py_NewRef(value));
    return 0;
}

static int hop_set_kernels(Hop *self, PyObject *value, void *closure) {
    (void)closure;
    if (!value || !PyTuple_CheckExact(value)) return refuse("Hop.kernels is a tuple");
    Py_XSETREF(self->kernels, Py_NewRef(value));
    return 0;
}

static int hop_set_decide(Hop *self, PyObject *value, void *closure) {
    (void)closure;
    if (!value) return refuse("Hop.decide cannot be deleted");
    Py_XSETREF(self->decide, Py_NewRef(value));
    return 0;
}

static int hop_set_next(Hop *self, PyObject *value, void *closure) {
    (void)closure;
    if (!value || !PyList_CheckExact(value)) return refuse("Hop.next is a list");
    Py_XSETREF(self->next, Py_NewRef(value));
    return 0;
}

static PyGetSetDef hop_getset[] = {
    {"runs", (getter)hop_get_runs, (setter)hop_set_runs, NULL, NULL},
    {"kernels", (getter)hop_get_kernels, (setter)hop_set_kernels, NULL, NULL},
    {"decide", (getter)hop_get_decide, (setter)hop_set_decide, NULL, NULL},
    {"next", (getter)hop_get_next, (setter)hop_set_next, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef hop_members[] = {
    {"macs", T_LONGLONG, offsetof(Hop, macs), 0, NULL},
    {"need_macs", T_LONGLONG, offsetof(Hop, need_macs), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject HopType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "dynrt.runtime.kernels._native.Hop",
    .tp_doc = "What happens between two decisions.",
    .tp_basicsize = sizeof(Hop),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = hop_new,
    .tp_traverse = (traverseproc)hop_traverse,
    .tp_clear = (inquiry)hop_clear,
    .tp_dealloc = (destructor)hop_dealloc,
    .tp_getset = hop_getset,
    .tp_members = hop_members,
    .tp_weaklistoffset = offsetof(Hop, weak),
};

static int run_calls(PyObject *runs) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(runs); i++) {
        PyObject *run = PyTuple_GET_ITEM(runs, i);
        PyObject *result = PyObject_CallOneArg(PyTuple_GET_ITEM(run, 0), PyTuple_GET_ITEM(run, 1));
        if (!result) return -1;
        Py_DECREF(result);
    }
    return 0;
}

static int run_kernels(PyObject *kernels) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(kernels); i++) {
        PyObject *kernel = PyTuple_GET_ITEM(kernels, i);
        if (Py_IS_TYPE(kernel, &KernelType)) {
            if (((Kernel *)kernel)->run((Kernel *)kernel) == FAILED) return -1;
            continue;
        }
        PyObject *result = PyObject_CallNoArgs(kernel);
        if (!result) return -1;
        Py_DECREF(result);
    }
    return 0;
}

static PyObject *stopped(int why, Hop *hop, PyObject *outcome) {
    PyObject *result = outcome ? Py_BuildValue("iNN", why, hop, outcome) : NULL;
    if (!outcome) Py_DECREF(hop);
    return result;
}

static PyObject *native_follow(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    if (nargs != 3 || !PyObject_TypeCheck(args[0], &HopType) || !PyLong_Check(args[1]) ||
        !PyList_CheckExact(args[2])) {
        PyErr_SetString(PyExc_TypeError, "follow(hop: Hop, left_macs: int, trail: list)");
        return NULL;
    }
    int overflow = 0;
    int64_t left = PyLong_AsLongLongAndOverflow(args[1], &overflow);
    if (overflow) left = overflow > 0 ? INT64_MAX : INT64_MIN;
    Hop *hop = (Hop *)Py_NewRef(args[0]);
    for (unsigned turn = 1;; turn++) {
        if (hop->need_macs > left) return stopped(1, hop, PyLong_FromLong(0));
        if (__builtin_sub_overflow(left, hop->macs, &left)) left = INT64_MIN;
        if (PyTuple_GET_SIZE(hop->runs)) {
            PyObject *runs = Py_NewRef(hop->runs); /* a call may replace them */
            const int failed = run_calls(runs);
            Py_DECREF(runs);
            if (failed) goto failure;
        }
        if (PyTuple_GET_SIZE(hop->kernels)) {
            PyObject *kernels = Py_NewRef(hop->kernels);
            const int failed = run_kernels(kernels);
            Py_DECREF(kernels);
            if (failed) goto failure;
        }
        if (PyList_Append(args[2], (PyObject *)hop) < 0) goto failure;
        if (hop->decide == Py_None) return stopped(0, hop, PyLong_FromLong(0));
        int64_t outcome;
        PyObject *decide = hop->decide;
        if (Py_IS_TYPE(decide, &KernelType)) {
            outcome = ((Kernel *)decide)->run((Kernel *)decide);
            if (outcome == FAILED) goto failure;
        } else {
            Py_INCREF(decide);
            PyObject *result = PyObject_CallNoArgs(decide);
            Py_DECREF(decide);
            if (!result) goto failure;
            outcome = PyLong_AsLongLongAndOverflow(result, &overflow);
            if (outcome == -1 && PyErr_Occurred()) {
                Py_DECREF(result);
                goto failure;
            }
            if (overflow) return stopped(overflow > 0 ? 2 : 3, hop, result);
            Py_DECREF(result);
        }
        if (outcome < 0) return stopped(3, hop, PyLong_FromLongLong(outcome));
        PyObject *ahead = outcome < PyList_GET_SIZE(hop->next) ? PyList_GET_ITEM(hop->next, outcome)
                                                               : Py_None;
        if (ahead == Py_None) return stopped(2, hop, PyLong_FromLongLong(outcome));
        if (!PyObject_TypeCheck(ahead, &HopType)) {
            PyErr_SetString(PyExc_TypeError, "Hop.next holds something else");
            goto failure;
        }
        Py_INCREF(ahead);
        Py_DECREF(hop);
        hop = (Hop *)ahead;
        if (turn % 1024 == 0 && PyErr_CheckSignals() < 0) goto failure;
    }
failure:
    Py_DECREF(hop);
    return NULL;
}
