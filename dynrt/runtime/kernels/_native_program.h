/* Programs: checked, packed and bound; included by _native.c. */

static int padded(int n) { return (n + PANEL - 1) / PANEL * PANEL; }

static int region_fits(const int32_t *region, int floats) {
    return region[0] >= 0 && region[1] > 0 && region[1] <= MAX_FLOATS &&
           (int64_t)region[0] + padded(region[1]) <= floats;
}

static int constant_fits(const int32_t *region, int constants) {
    return (int64_t)region[0] + region[1] <= constants;
}

/* Whether operands fit the kind; r: out, then the operands. */
static int operation_fits(int kind, int n, const int32_t *r, int constants) {
    const int32_t m = r[1], *a = r + 2;
    if (kind < 0 || kind >= KINDS) return 0;
    if (kind <= SOFTMAX) return n == 1 && a[1] == m;
    if (kind <= MIN) {
        const int known = n == 2 && (a[1] == m || a[1] == 1) && (a[3] == m || a[3] == 1);
        return known && (a[1] == m || a[3] == m);
    }
    if (kind <= REDUCE_MEAN) return n == 1 && m == 1;
    if (kind == CONCAT) {
        int64_t sum = 0;
        for (int i = 0; i < n; i++) sum += a[2 * i + 1];
        return sum == m;
    }
    if (kind == LINEAR)
        return n == 3 && (int64_t)m * a[1] == a[3] && a[5] == m && constant_fits(a + 2, constants) &&
               constant_fits(a + 4, constants);
    if (n != 6) return 0;
    const int64_t k = a[3], x = a[1];
    return m == 2 * k && a[5] == k && a[7] == 4 * k * x && a[9] == 4 * k * k && a[11] == 4 * k &&
           constant_fits(a + 6, constants) && constant_fits(a + 8, constants) &&
           constant_fits(a + 10, constants);
}

/* Floats of an operation's packed weights. */
static size_t packed_floats(int kind, const int32_t *r) {
    const size_t m = r[1], n = r[3];
    if (kind == LINEAR) return m < 4 ? m * padded(n) + padded(m) : padded(m) * (n + 1);
    if (kind == LSTM) return (size_t)padded(r[5]) * 4 * (n + r[5] + 1);
    return 0;
}

static void pack_linear(Op *o, float *packed, const float *weight, const float *bias) {
    const int m = o->m, n = o->n;
    o->packed = packed;
    o->panels = m < 4 ? 0 : padded(m) / PANEL;
    if (!o->panels) {
        for (int i = 0; i < m; i++)
            memcpy(packed + (size_t)i * padded(n), weight + (size_t)i * n, n * sizeof(float));
        memcpy(packed + (size_t)m * padded(n), bias, m * sizeof(float));
        return;
    }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++)
            packed[((size_t)(i / PANEL) * n + j) * PANEL + i % PANEL] = weight[(size_t)i * n + j];
    memcpy(packed + (size_t)o->panels * PANEL * n, bias, m * sizeof(float));
}

static void pack_lstm(Op *o, float *packed, const float *w, const float *r, const float *bias) {
    const int k = o->m, n = o->n;
    o->packed = packed;
    for (int unit = 0; unit < k; unit += PANEL) {
        for (int row = 0; row < 1 + n + k; row++) {
            for (int gate = 0; gate < 4; gate++, packed += PANEL) {
                for (int lane = 0; lane < PANEL && unit + lane < k; lane++) {
                    const size_t at = (size_t)gate * k + unit + lane;
                    packed[lane] = row == 0       ? bias[at]
                                   : row - 1 < n ? w[at * n + row - 1]
                                                 : r[at * k + row - 1 - n];
                }
            }
        }
    }
}

/* Every (array, start, size) of a tuple: is it well formed? */
static int ports_fit(PyObject *ports, int floats) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(ports); i++) {
        PyObject *array;
        int start, size;
        if (!PyTuple_Check(PyTuple_GET_ITEM(ports, i)) ||
            !PyArg_ParseTuple(PyTuple_GET_ITEM(ports, i), "Oii", &array, &start, &size))
            return 0;
        const int32_t region[2] = {start, size};
        if (!region_fits(region, floats)) return 0;
    }
    return 1;
}

static int bind_ports(Kernel *self, PyObject *ports, Copy *copies, float *memory, int write) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(ports); i++, copies++) {
        PyObject *array;
        int start, size;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(ports, i), "Oii", &array, &start, &size)) return 0;
        void *at = take_view(self, array, "f", size, write);
        if (!at) return 0;
        copies->to = write ? at : memory + start;
        copies->from = write ? (void *)(memory + start) : at;
        copies->bytes = size * sizeof(float);
    }
    return 1;
}

static void set_operation(Op *o, int kind, int n, const int32_t *r, float *memory,
                          const float *values, float *packed) {
    o->kind = kind;
    o->m = r[1];
    o->n = n;
    o->memory = memory;
    o->out = memory + r[0];
    o->regions = r + 2;
    o->a = memory + r[2];
    o->an = r[3];
    o->b = n > 1 ? memory + r[4] : o->a;
    o->bn = n > 1 ? r[5] : o->an;
    o->c = n > 2 ? memory + r[6] : o->a;
    if (kind == CLIP) {
        o->low = values[0];
        o->high = values[1];
    } else if (kind == LINEAR) {
        o->n = r[3];
        pack_linear(o, packed, memory + r[4], memory + r[6]);
    } else if (kind == LSTM) {
        o->m = r[5];
        o->n = r[3];
        pack_lstm(o, packed, memory + r[8], memory + r[10], memory + r[12]);
    }
}

/* program(floats, constants, code, values, loads, stores): code holds, per operation, its kind, how
 * many operands, and the regions (start, size) of its result and its operands. */
static PyObject *native_program(PyObject *module, PyObject *args) {
    (void)module;
    int floats;
    Py_buffer constants, code, values;
    PyObject *loads, *stores;
    if (!PyArg_ParseTuple(args, "iy*y*y*O!O!", &floats, &constants, &code, &values, &PyTuple_Type,
                          &loads, &PyTuple_Type, &stores))
        return NULL;
    Kernel *self = NULL;
    const int32_t *words = code.buf;
    const Py_ssize_t count = code.len / 4;
    const Py_ssize_t given = constants.len / 4, bounds = values.len / 4;
    int operations = 0;
    Py_ssize_t clips = 0;
    size_t packed = 0;
    int fits = floats >= 0 && floats <= MAX_FLOATS && given <= floats && code.len % 4 == 0 &&
               PyTuple_GET_SIZE(loads) + PyTuple_GET_SIZE(stores) < 4096;
    for (Py_ssize_t at = 0; fits && at < count; operations++) {
        fits = at + 2 <= count && words[at + 1] > 0 && words[at + 1] < 4096 &&
               at + 4 + 2 * words[at + 1] <= count;
        if (!fits) break;
        const int kind = words[at], n = words[at + 1];
        for (int i = 0; i <= n; i++) fits &= region_fits(words + at + 2 + 2 * i, floats);
        fits = fits && operation_fits(kind, n, words + at + 2, (int)given);
        if (fits) packed += packed_floats(kind, words + at + 2);
        clips += kind == CLIP;
        at += 4 + 2 * n;
    }
    fits = fits && bounds == 2 * clips && packed <= ((size_t)1 << 26) && ports_fit(loads, floats) &&
           ports_fit(stores, floats);
    if (!fits) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a program does not fit");
        goto done;
    }
    {
        const int ports = (int)(PyTuple_GET_SIZE(loads) + PyTuple_GET_SIZE(stores));
        /* one piece of memory: state, floats, packed weights, operations, copies, code, all
         * multiples of 64 bytes but the last */
        const size_t head = (sizeof(ProgramState) + 63) / 64 * 64;
        const size_t body = ((size_t)padded(floats) + padded((int)packed)) * sizeof(float);
        const size_t tail = operations * sizeof(Op) + ports * sizeof(Copy) + code.len;
        self = new_kernel(head + body + tail, ports, 0);
        if (!self) goto done;
        ProgramState *s = self->state;
        float *memory = (float *)((char *)self->state + head);
        float *weights = memory + padded(floats);
        s->ops = (Op *)((char *)self->state + head + body);
        s->copies = (Copy *)(s->ops + operations);
        int32_t *words_kept = (int32_t *)(s->copies + ports);
        memcpy(memory, constants.buf, given * sizeof(float));
        memcpy(words_kept, code.buf, code.len);
        s->operations = operations;
        s->loads = (int)PyTuple_GET_SIZE(loads);
        s->stores = (int)PyTuple_GET_SIZE(stores);
        const float *value = values.buf;
        const int32_t *r = words_kept;
        for (int i = 0; i < operations; i++) {
            set_operation(&s->ops[i], r[0], r[1], r + 2, memory, value, weights);
            weights += packed_floats(r[0], r + 2);
            value += r[0] == CLIP ? 2 : 0;
            r += 4 + 2 * r[1];
        }
        if (!bind_ports(self, loads, s->copies, memory, 0) ||
            !bind_ports(self, stores, s->copies + s->loads, memory, 1)) {
            Py_CLEAR(self);
            goto done;
        }
        self->run = vectors->program;
    }
done:
    PyBuffer_Release(&constants);
    PyBuffer_Release(&code);
    PyBuffer_Release(&values);
    return (PyObject *)self;
}
