/* The decisions: argmax, thresholds, exits and their joined answers. Rules compare in float64, like
 * the host's, so that both decide alike.
 */
#include "mathematics.h"
#include "ops.h"

static bool any_nan(const float *values, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (math_is_nan((double)values[i])) {
            return true;
        }
    }
    return false;
}

/* A forced decision is recorded as it is; true if there was one. */
static bool forced(struct network *net, uint32_t decision)
{
    if (net->force[decision] == OT_NONE) {
        return false;
    }
    net->decisions[decision] = net->force[decision];
    return true;
}

bool run_argmax(struct network *net, const uint32_t *op)
{
    const float *scores = tensor_of(net, op[3]);
    if (forced(net, op[9])) {
        return true;
    }
    uint32_t best = 0;
    for (uint32_t i = 1; i < op[8]; i++) {
        if (scores[i] > scores[best]) {
            best = i;
        }
    }
    net->decisions[op[9]] = 1u << best;
    return !any_nan(scores, op[8]);
}

bool run_threshold(struct network *net, const uint32_t *op)
{
    const float *scores = tensor_of(net, op[3]);
    if (forced(net, op[9])) {
        return true;
    }
    uint32_t actions = 0;
    for (uint32_t i = 0; i < op[8]; i++) {
        if ((double)scores[i] >= net->thresholds[op[10] + i]) {
            actions |= 1u << i;
        }
    }
    net->decisions[op[9]] = actions;
    return !any_nan(scores, op[8]);
}

struct softmax {
    double top;
    double sum;
};

static struct softmax softmax_of(const float *values, uint32_t count)
{
    struct softmax s = {.top = (double)values[0]};
    for (uint32_t i = 1; i < count; i++) {
        s.top = (double)values[i] > s.top ? (double)values[i] : s.top;
    }
    for (uint32_t i = 0; i < count; i++) {
        s.sum += math_exp((double)values[i] - s.top);
    }
    return s;
}

static double probability(const struct softmax *s, float value)
{
    return math_exp((double)value - s->top) / s->sum;
}

/* The largest probability less the second largest. */
static double margin(const struct softmax *s, const float *values, uint32_t count)
{
    double first = -1.0;
    double second = -1.0;
    for (uint32_t i = 0; i < count; i++) {
        const double p = probability(s, values[i]);
        if (p > first) {
            second = first;
            first = p;
        } else if (p > second) {
            second = p;
        }
    }
    return first - second;
}

/* 1 - H(p) / ln(count). */
static double certainty(const struct softmax *s, const float *values, uint32_t count)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < count; i++) {
        const double p = probability(s, values[i]);
        if (p > 0.0) {
            sum += p * math_log(p);
        }
    }
    return 1.0 + sum / math_log((double)count);
}

/* The score that an exit's threshold is compared with; false if the values have none. */
static bool accept_score(uint32_t kind, const float *values, uint32_t count, double *score)
{
    if (any_nan(values, count)) {
        return false;
    }
    const struct softmax s = softmax_of(values, count);
    if (kind == OT_HINGE) {
        *score = s.top;
        return true;
    }
    for (uint32_t i = 0; i < count; i++) {
        const double v = (double)values[i];
        if (v == MATH_INFINITY || v == -MATH_INFINITY) {
            return false;
        }
    }
    if (kind == OT_MAX_SOFTMAX) {
        *score = 1.0 / s.sum; /* the largest one's exponential is 1 */
    } else if (count == 1u) {
        *score = 1.0;
    } else if (kind == OT_MARGIN) {
        *score = margin(&s, values, count);
    } else {
        *score = certainty(&s, values, count);
    }
    return true;
}

bool run_accept(struct network *net, const uint32_t *op)
{
    const uint32_t decision = op[9];
    if (!forced(net, decision)) {
        double score = 0.0;
        bool accepts = true;
        if (op[8] != OT_ALWAYS_ACCEPT) {
            if (!accept_score(op[8], tensor_of(net, op[3]), op[11], &score)) {
                return false;
            }
            accepts = score >= net->thresholds[op[10]];
        }
        net->decisions[decision] = accepts ? 1u : 0u;
    }
    if (net->decisions[decision] != 0) {
        net->exit = decision;
        net->answer = tensor_of(net, op[4]);
        net->answer_size = slot_at(net, op[4])[1];
    }
    return true;
}

/* Join `part` of `count` floats to `answer` at `at`. */
static void join(uint32_t kind, bool first, float *answer, const float *part, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (first || kind == OT_LAST || kind == OT_JOIN) {
            answer[i] = part[i];
        } else if (kind == OT_SUM) {
            answer[i] += part[i];
        } else if (part[i] > answer[i] || part[i] != part[i]) {
            answer[i] = part[i];
        }
    }
}

bool run_combine(struct network *net, const uint32_t *op)
{
    static float answer[MAX_ANSWER_BYTES / 4u];
    const uint32_t *pairs = net->lists + op[9];
    uint32_t used = 0;
    bool first = true;
    for (uint32_t i = 0; i < op[10]; i++) {
        const float *part = tensor_of(net, pairs[2u * i]);
        const uint32_t count = pairs[2u * i + 1u];
        if (part != NULL) {
            join(op[8], first, answer + (op[8] == OT_JOIN ? used : 0), part, count);
            net->exit = op[12] + i;
            net->decisions[net->exit] = op[13];
            first = false;
        } else if (op[8] == OT_JOIN) {
            for (uint32_t k = 0; k < count; k++) {
                answer[used + k] = math_float(op[11]);
            }
        }
        used += op[8] == OT_JOIN ? count : 0;
        if (op[8] != OT_JOIN && part != NULL) {
            net->answer_size = count * 4u;
        }
    }
    if (!first) {
        net->answer = (const uint8_t *)(const void *)answer;
        net->answer_size = op[8] == OT_JOIN ? used * 4u : net->answer_size;
    }
    return true;
}
