/* What the meter needs of its microcontroller; port_pico.c gives it on a Raspberry Pi Pico. */
#ifndef METER_PORT_H
#define METER_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Microseconds since the reset; never backwards. */
uint64_t port_microseconds(void);

/* The level of the marker input. */
bool port_marker(void);

/* Write, or write and then read, on the sensor's I2C bus; false if it does not answer. */
bool port_i2c_write(uint8_t address, const uint8_t *bytes, size_t count);
bool port_i2c_read(uint8_t address, uint8_t reg, uint8_t *bytes, size_t count);

/* Send to the host. A line that finds no room is dropped whole: the sequence number shows it. */
void port_send(const char *text, size_t count);

#endif
