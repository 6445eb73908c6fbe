#include "meter.h"

#include "port.h"

/* Averages of 4, 588 us per conversion of shunt and bus, both continuously: 213 samples per second,
 * which fit into 115,200 baud. */
#define CONFIGURATION 0x42DFu
#define CONVERSION_US 4704u
#define CONVERSION_READY (1u << 3)
#define MAKER_TI 0x5449u

#define SHUNT_NANOVOLT_PER_BIT 2500
#define BUS_MICROVOLT_PER_BIT 1250

static uint32_t next_sequence;
static uint64_t last_sample_us;

static uint16_t crc16(const char *text, size_t count)
{
    uint32_t crc = 0xFFFFu;
    for (size_t i = 0; i < count; i++) {
        crc ^= (uint32_t)(uint8_t)text[i] << 8;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc & 0x8000u) != 0 ? (crc << 1) ^ 0x1021u : crc << 1;
        }
    }
    return (uint16_t)(crc & 0xFFFFu);
}

static size_t put_text(char *line, size_t at, const char *text)
{
    while (*text != 0) {
        line[at++] = *text++;
    }
    return at;
}

/* At least `digits` digits. */
static size_t put_number(char *line, size_t at, uint64_t value, uint32_t digits)
{
    char text[20];
    uint32_t used = 0;
    do {
        text[used++] = (char)('0' + (char)(value % 10u));
        value /= 10u;
    } while (value != 0 || used < digits);
    while (used != 0) {
        line[at++] = text[--used];
    }
    return at;
}

/* Millionths with `places` places behind the point, rounded half away from zero. */
static size_t put_decimal(char *line, size_t at, int32_t millionths, uint32_t places)
{
    uint32_t unit = 1;
    for (uint32_t i = places; i < 6u; i++) {
        unit *= 10u;
    }
    const uint32_t size = millionths < 0 ? 0u - (uint32_t)millionths : (uint32_t)millionths;
    const uint32_t rounded = (size + unit / 2u) / unit;
    const uint32_t whole = 1000000u / unit;
    if (millionths < 0) {
        line[at++] = '-';
    }
    at = put_number(line, at, rounded / whole, 1);
    line[at++] = '.';
    return put_number(line, at, rounded % whole, places);
}

size_t meter_line(const struct meter_sample *sample, char *line)
{
    size_t at = put_number(line, 0, sample->sequence, 1);
    line[at++] = ',';
    at = put_number(line, at, sample->microseconds, 1);
    line[at++] = ',';
    at = sample->valid ? put_decimal(line, at, sample->bus_microvolt, 4) : put_text(line, at, "nan");
    line[at++] = ',';
    if (!sample->valid) {
        at = put_text(line, at, "nan");
    } else if (sample->overload) {
        at = put_text(line, at, "9.9e37");
    } else {
        at = put_decimal(line, at, sample->microampere, 6);
    }
    line[at++] = ',';
    line[at++] = sample->marker ? '1' : '0';
    const uint32_t crc = crc16(line, at);
    line[at++] = '*';
    for (uint32_t shift = 16; shift != 0; shift -= 4u) {
        line[at++] = "0123456789ABCDEF"[crc >> (shift - 4u) & 15u];
    }
    return put_text(line, at, "\r\n");
}

void meter_convert(int16_t shunt, uint16_t bus, struct meter_sample *sample)
{
    const int64_t nanovolt = (int64_t)shunt * SHUNT_NANOVOLT_PER_BIT;
    sample->microampere = (int32_t)(nanovolt * 1000 / METER_SHUNT_MICRO_OHM);
    sample->bus_microvolt = (int32_t)bus * BUS_MICROVOLT_PER_BIT;
    sample->overload = shunt == INT16_MAX || shunt == INT16_MIN;
}

static bool read_register(uint8_t reg, uint16_t *value)
{
    uint8_t bytes[2];
    if (!port_i2c_read(METER_I2C_ADDRESS, reg, bytes, sizeof bytes)) {
        return false;
    }
    *value = (uint16_t)((uint32_t)bytes[0] << 8 | bytes[1]);
    return true;
}

bool meter_start(void)
{
    const uint8_t configure[3] = {INA226_CONFIGURATION, CONFIGURATION >> 8, CONFIGURATION & 255u};
    uint16_t maker = 0;
    return read_register(INA226_MAKER, &maker) && maker == MAKER_TI &&
           port_i2c_write(METER_I2C_ADDRESS, configure, sizeof configure);
}

void meter_poll(void)
{
    struct meter_sample sample = {.microseconds = port_microseconds(), .marker = port_marker()};
    uint16_t mask = 0;
    uint16_t shunt = 0;
    uint16_t bus = 0;
    char line[METER_LINE_BYTES];
    const bool answers = read_register(INA226_MASK, &mask);
    if (answers && (mask & CONVERSION_READY) == 0) {
        return;
    }
    if (!answers && sample.microseconds - last_sample_us < CONVERSION_US) {
        return; /* a silent sensor gives lines of nan at its usual rate */
    }
    sample.valid = answers && read_register(INA226_SHUNT, &shunt) && read_register(INA226_BUS, &bus);
    if (sample.valid) {
        meter_convert((int16_t)shunt, bus, &sample);
    } else {
        (void)meter_start(); /* it may have lost its supply, and its configuration */
    }
    sample.sequence = next_sequence++;
    last_sample_us = sample.microseconds;
    port_send(line, meter_line(&sample, line));
}
