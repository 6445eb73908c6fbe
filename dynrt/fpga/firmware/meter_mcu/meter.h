/* The reference meter: an INA226 read as fast as it converts, each sample one checksummed line. */
#ifndef METER_H
#define METER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The ZedBoard's J21. */
#define METER_SHUNT_MICRO_OHM 10000
#define METER_I2C_ADDRESS 0x40u
#define METER_LINE_BYTES 96u

/* Registers of the INA226 (TI SBOS547, table 7-1). */
enum ina226_register {
    INA226_CONFIGURATION = 0x00,
    INA226_SHUNT = 0x01,
    INA226_BUS = 0x02,
    INA226_MASK = 0x06,
    INA226_MAKER = 0xFE
};

struct meter_sample {
    uint32_t sequence;
    uint64_t microseconds;
    int32_t bus_microvolt;
    int32_t microampere;
    bool valid;    /* false: the sensor did not answer */
    bool overload; /* the shunt's voltage is at the end of the range */
    bool marker;
};

/* `seq,us,volts,amperes,marker*CRC16\r\n`: volts with 4 places, amperes with 6; `nan` for what was
 * not measured and 9.9e37 for an overload. Gives the length; `line` holds METER_LINE_BYTES. */
size_t meter_line(const struct meter_sample *sample, char *line);

/* The values of the sensor's two registers. */
void meter_convert(int16_t shunt, uint16_t bus, struct meter_sample *sample);

/* Find and configure the sensor. */
bool meter_start(void);

/* If the sensor has a new conversion, send its line. Call it in a loop. */
void meter_poll(void);

#endif
