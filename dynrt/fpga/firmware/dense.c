/* GEMM and LSTM: products of a matrix's rows with one vector. */
#include "lanes.h"
#include "mathematics.h"
#include "ops.h"
#include "patch.h"

#define DOT_ROWS 4u

/* sums[i] += row i of `matrix` times `x`, for `rows` (a constant) rows of `count`. */
static inline __attribute__((always_inline)) void dot_rows(const float *matrix, const float *x,
                                                           uint32_t count, float *sums,
                                                           const uint32_t rows)
{
    Lanes parts[DOT_ROWS];
    const float *row[DOT_ROWS];
    for (uint32_t i = 0; i < rows; i++) {
        parts[i] = lanes_all(0.0f);
        row[i] = matrix + (size_t)i * count;
    }
    uint32_t k = 0;
    for (; count - k >= LANES; k += LANES) {
        const Lanes value = lanes_load(x + k);
        for (uint32_t i = 0; i < rows; i++) {
            parts[i] = lanes_multiply_add(parts[i], lanes_load(row[i] + k), value);
        }
    }
    for (uint32_t i = 0; i < rows; i++) {
        float sum = lanes_total(parts[i]);
        for (uint32_t j = k; j < count; j++) {
            sum += row[i][j] * x[j];
        }
        sums[i] += sum;
    }
}

/* y[m] += (row m of `matrix`, which has `columns`) times x. */
static void add_products(const float *matrix, const float *x, uint32_t columns, uint32_t rows,
                         float *y)
{
    uint32_t m = 0;
    for (; rows - m >= DOT_ROWS; m += DOT_ROWS) {
        dot_rows(matrix + (size_t)m * columns, x, columns, y + m, DOT_ROWS);
    }
    for (; m < rows; m++) {
        dot_rows(matrix + (size_t)m * columns, x, columns, y + m, 1u);
    }
}

bool run_gemm(struct network *net, const uint32_t *op)
{
    const uint32_t columns = op[8];
    const uint32_t outputs = op[9];
    const float *x = tensor_of(net, op[3]);
    const float *weights = floats_at(net, op[10]);
    const float *bias = floats_at(net, op[11]);
    float *y = tensor_made(net, op[2]);
    for (uint32_t row = 0; row < op[12]; row++, x += columns, y += outputs) {
        for (uint32_t m = 0; m < outputs; m++) {
            y[m] = bias == NULL ? 0.0f : bias[m];
        }
        add_products(weights, x, columns, outputs, y);
        for (uint32_t m = 0; op[6] == OT_ACT_RELU && m < outputs; m++) {
            y[m] = y[m] < 0.0f ? 0.0f : y[m];
        }
    }
    return true;
}

/* One step; gates lie in the order input, output, forget, cell. h' and c' may be where h and c are. */
bool run_lstm(struct network *net, const uint32_t *op)
{
    const uint32_t inputs = op[8];
    const uint32_t hidden = op[9];
    const float *x = tensor_of(net, op[3]);
    const float *h = tensor_of(net, op[4]);
    const float *c = tensor_of(net, op[5]);
    const float *bias = floats_at(net, op[12]);
    float *gates = patch_memory;
    for (uint32_t i = 0; i < 4u * hidden; i++) {
        gates[i] = bias == NULL ? 0.0f : bias[i];
    }
    add_products(floats_at(net, op[10]), x, inputs, 4u * hidden, gates);
    add_products(floats_at(net, op[11]), h, hidden, 4u * hidden, gates);
    float *new_h = tensor_made(net, op[2]);
    float *new_c = tensor_made(net, op[7]);
    for (uint32_t i = 0; i < hidden; i++) {
        const float input = math_sigmoid(gates[i]);
        const float output = math_sigmoid(gates[hidden + i]);
        const float forget = math_sigmoid(gates[2u * hidden + i]);
        const float cell = math_tanh(gates[3u * hidden + i]);
        const float state = forget * c[i] + input * cell;
        new_c[i] = state;
        new_h[i] = output * math_tanh(state);
    }
    return true;
}
