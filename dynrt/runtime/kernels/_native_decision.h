/* Decisions; all in double, as the rules in Python are. Included by _native.c. */

typedef struct {
    const float *scores;
    int n, bounds, kind;
    double tie;
    double bound[];
} DecisionState;

static inline int is_near(double score, double bound, double tie) {
    return tie > 0 && isfinite(bound) && fabs(score - bound) <= tie;
}

static int64_t decide_threshold(Kernel *self) {
    const DecisionState *s = self->state;
    int64_t mask = 0;
    int near = 0;
    for (int i = 0; i < s->n; i++) {
        const double score = s->scores[i];
        if (score != score) return NOT_A_NUMBER;
        if (i >= s->bounds) continue;
        near |= is_near(score, s->bound[i], s->tie);
        mask |= (int64_t)(score >= s->bound[i]) << i;
    }
    return near ? NEAR : mask;
}

static int64_t decide_argmax(Kernel *self) {
    const DecisionState *s = self->state;
    double best = -INFINITY, second = -INFINITY;
    int index = 0;
    for (int i = 0; i < s->n; i++) {
        const double score = s->scores[i];
        if (score != score) return NOT_A_NUMBER;
        if (score > best) {
            second = best;
            best = score;
            index = i;
        } else if (score > second) {
            second = score;
        }
    }
    return s->tie > 0 && s->n > 1 && (best == second || best - second <= s->tie) ? NEAR : index;
}

enum { HINGE, MAX_SOFTMAX, MARGIN, ENTROPY };

/* Sums in another order than numpy's differ in the last digits: what lies this near is left to
 * the Python twin. */
#define OPEN 1e-11

static int64_t decide_accept(Kernel *self) {
    const DecisionState *s = self->state;
    const double bound = s->bound[0];
    double best = -INFINITY, second = -INFINITY;
    for (int i = 0; i < s->n; i++) {
        const double x = s->scores[i];
        if (x != x || (s->kind != HINGE && !isfinite(x))) return NOT_A_NUMBER;
        if (x > best) {
            second = best;
            best = x;
        } else if (x > second) {
            second = x;
        }
    }
    double score = best;
    if (s->kind != HINGE) {
        double sum = 0, weighted = 0;
        for (int i = 0; i < s->n; i++) {
            const double x = s->scores[i] - best, e = exp(x);
            sum += e;
            weighted += e * x;
        }
        if (s->kind == MAX_SOFTMAX) score = 1.0 / sum;
        else if (s->n == 1) score = 1.0;
        else if (s->kind == MARGIN) score = (1.0 - exp(second - best)) / sum;
        else score = 1.0 + (weighted / sum - log(sum)) / log((double)s->n);
        const double off = fabs(score - bound);
        if (off <= OPEN || (s->tie > 0 && fabs(off - s->tie) <= OPEN)) {
            PyObject *result = PyObject_CallNoArgs(self->fallback);
            if (!result) return FAILED;
            const int64_t outcome = PyLong_AsLongLong(result);
            Py_DECREF(result);
            return outcome == -1 && PyErr_Occurred() ? FAILED : outcome;
        }
    }
    if (is_near(score, bound, s->tie)) return NEAR;
    return score >= bound;
}

/* decision(rule, scores, bounds, tie, fallback): rule 0 threshold, 1 argmax, 2 + kind accept. */
static PyObject *native_decision(PyObject *module, PyObject *args) {
    (void)module;
    int rule;
    PyObject *scores, *bounds, *fallback;
    double tie;
    if (!PyArg_ParseTuple(args, "iOO!dO", &rule, &scores, &PyTuple_Type, &bounds, &tie, &fallback))
        return NULL;
    const Py_ssize_t count = PyTuple_GET_SIZE(bounds);
    if (rule < 0 || rule > 2 + ENTROPY || count > 62 || (rule >= 2 && count != 1)) {
        PyErr_SetString(PyExc_ValueError, "no such decision");
        return NULL;
    }
    Kernel *self = new_kernel(sizeof(DecisionState) + count * sizeof(double), 1, 1);
    if (!self) return NULL;
    DecisionState *s = self->state;
    s->scores = take_view(self, scores, "f", -1, 0);
    const Py_ssize_t n = s->scores ? self->view[0].len / 4 : 0;
    if (s->scores && (n < 1 || n > MAX_FLOATS || count > n))
        PyErr_SetString(PyExc_ValueError, "more thresholds than scores");
    for (Py_ssize_t i = 0; i < count && !PyErr_Occurred(); i++)
        s->bound[i] = PyFloat_AsDouble(PyTuple_GET_ITEM(bounds, i));
    if (PyErr_Occurred()) {
        Py_DECREF(self);
        return NULL;
    }
    s->n = (int)n;
    s->bounds = (int)count;
    s->tie = tie;
    s->kind = rule - 2;
    self->fallback = Py_NewRef(fallback);
    self->run = rule == 0 ? decide_threshold : rule == 1 ? decide_argmax : decide_accept;
    return (PyObject *)self;
}
