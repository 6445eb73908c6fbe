/* The meter's port for a Raspberry Pi Pico (pico-sdk 1.5 or 2): USB serial to the host, I2C0 on GP4
 * (SDA) and GP5 (SCL), the marker on GP2.
 */
#include "hardware/gpio.h"
#include "hardware/i2c.h"
#include "meter.h"
#include "pico/stdlib.h"
#include "port.h"
#include "tusb.h"

#define SDA_PIN 4u
#define SCL_PIN 5u
#define MARKER_PIN 2u
#define I2C_HERTZ 400000u
#define I2C_TIMEOUT_US 2000u

uint64_t port_microseconds(void)
{
    return time_us_64();
}

bool port_marker(void)
{
    return gpio_get(MARKER_PIN);
}

bool port_i2c_write(uint8_t address, const uint8_t *bytes, size_t count)
{
    return i2c_write_timeout_us(i2c0, address, bytes, count, false, I2C_TIMEOUT_US) == (int)count;
}

bool port_i2c_read(uint8_t address, uint8_t reg, uint8_t *bytes, size_t count)
{
    return i2c_write_timeout_us(i2c0, address, &reg, 1, true, I2C_TIMEOUT_US) == 1 &&
           i2c_read_timeout_us(i2c0, address, bytes, count, false, I2C_TIMEOUT_US) == (int)count;
}

void port_send(const char *text, size_t count)
{
    tud_task();
    if (tud_cdc_connected() && tud_cdc_write_available() >= count) {
        tud_cdc_write(text, (uint32_t)count);
        tud_cdc_write_flush();
    }
}

int main(void)
{
    stdio_init_all();
    i2c_init(i2c0, I2C_HERTZ);
    gpio_set_function(SDA_PIN, GPIO_FUNC_I2C);
    gpio_set_function(SCL_PIN, GPIO_FUNC_I2C);
    gpio_pull_up(SDA_PIN);
    gpio_pull_up(SCL_PIN);
    gpio_init(MARKER_PIN);
    gpio_set_dir(MARKER_PIN, GPIO_IN);
    gpio_pull_down(MARKER_PIN);
    (void)meter_start();
    for (;;) {
        meter_poll();
    }
}
