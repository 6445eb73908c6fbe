/* The reference meter on a sensor made of variables: prints its lines, which the test decodes. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "meter.h"
#include "port.h"

static uint64_t now_us;
static bool marker;
static bool connected = true;
static uint16_t registers[256];

uint64_t port_microseconds(void)
{
    return now_us;
}

bool port_marker(void)
{
    return marker;
}

bool port_i2c_write(uint8_t address, const uint8_t *bytes, size_t count)
{
    if (!connected || address != METER_I2C_ADDRESS || count != 3) {
        return false;
    }
    registers[bytes[0]] = (uint16_t)(bytes[1] << 8 | bytes[2]);
    return true;
}

bool port_i2c_read(uint8_t address, uint8_t reg, uint8_t *bytes, size_t count)
{
    if (!connected || address != METER_I2C_ADDRESS || count != 2) {
        return false;
    }
    bytes[0] = (uint8_t)(registers[reg] >> 8);
    bytes[1] = (uint8_t)registers[reg];
    if (reg == INA226_MASK) { /* reading clears the flag */
        registers[reg] = 0;
    }
    return true;
}

void port_send(const char *text, size_t count)
{
    fwrite(text, 1, count, stdout);
}

/* `shunt` in 2.5 uV, `bus` in 1.25 mV. */
static void convert(int16_t shunt, uint16_t bus)
{
    registers[INA226_SHUNT] = (uint16_t)shunt;
    registers[INA226_BUS] = bus;
    registers[INA226_MASK] = 1u << 3;
    now_us += 4704;
}

int main(void)
{
    if (meter_start()) {
        return 1; /* that is no INA226 */
    }
    registers[INA226_MAKER] = 0x5449;
    if (!meter_start() || registers[INA226_CONFIGURATION] != 0x42DF) {
        return 2;
    }
    convert(853, 9600); /* 213.25 mA at 12 V */
    meter_poll();
    meter_poll(); /* nothing new: no line */
    marker = true;
    convert(-3, 9601);
    meter_poll();
    convert(INT16_MAX, 1);
    meter_poll();
    connected = false;
    now_us += 4704;
    meter_poll();
    meter_poll();
    connected = true;
    marker = false;
    now_us = (uint64_t)1 << 33;
    convert(1, 0);
    meter_poll();
    return 0;
}
