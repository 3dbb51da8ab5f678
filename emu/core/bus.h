/* The bus: physical memory regions and I/O ports, and who answers at them.
 *
 * Memory is a list of regions; where several cover an address the one mapped last answers, separately for reads and
 * writes, so that a chipset can route both (PAM, SMRAM). Regions backed by host memory are whole pages. */
#ifndef EMU_BUS_H
#define EMU_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SIZE 0x1000u
#define PAGE_MASK 0xfffull

#define REGION_READ  1u /* answers reads */
#define REGION_WRITE 2u /* answers writes; a region that answers reads alone lets writes fall to the one below */
#define REGION_ROM   4u /* swallows writes */

#define PAGE_CODE  1u /* decoded blocks lie in the page: writes must retire them */
#define PAGE_DIRTY 2u /* written since the last snapshot */
#define PAGE_HOOK  4u /* a memory hook watches a part of the page */

typedef uint64_t BusRead(void *self, uint64_t address, unsigned size);
typedef void BusWrite(void *self, uint64_t address, uint64_t value, unsigned size);

/* What answers at ports or at addresses that are not memory; address is absolute, size 1, 2, 4 or 8 (ports: to 4). */
typedef struct BusDevice {
    void *self;
    BusRead *read;
    BusWrite *write;
} BusDevice;

typedef struct Region {
    int id;
    uint32_t flags;
    uint64_t base, size;
    uint8_t *host;  /* NULL for a device */
    uint8_t *pages; /* PAGE_* of each page of a host region; regions that share host memory share it */
    BusDevice device;
} Region;

/* Ports that a chip can move: those that a base address register names. Where nobody was given the port for good, the
 * window that was made first answers, so that who answers depends on where the windows stand and on nothing else. */
typedef struct PortWindow {
    uint16_t first;
    uint32_t count;  /* 0: closed */
    uint8_t number;  /* index into port_devices, of this window alone */
} PortWindow;

#define PORT_WINDOWS 64

struct CPU;

typedef struct Bus {
    uint64_t a20_mask; /* what is left of an address */
    bool a20_masked;   /* what the A20M# pin says; blocked in VMX operation */
    Region *regions;
    uint32_t region_count, region_capacity;
    int next_id;
    struct { /* the page last looked for by reads, and by writes, where one region alone answers in all of it */
        uint64_t last_byte; /* 0: none */
        Region *region;
    } found[2];
    uint8_t *port_owner; /* [65536]: index into port_devices, 0 = nobody */
    BusDevice port_devices[256];
    uint32_t port_device_count;
    PortWindow windows[PORT_WINDOWS];
    uint32_t window_count;
    struct CPU **cpus; /* to be told of remapping and of writes to code */
    uint32_t cpu_count;
} Bus;

bool bus_init(Bus *bus);
void bus_free(Bus *bus);
void bus_set_a20(Bus *bus, bool enabled);
/* Acts on the pin anew: a processor has entered or left VMX operation (SDM Vol. 3, "Restrictions on VMX Operation"). */
void bus_settle_a20(Bus *bus);

/* Each returns the region's id, or -1 when memory is exhausted. */
int bus_map_memory(Bus *bus, uint64_t base, uint64_t size, uint8_t *host, uint8_t *pages, uint32_t flags);
int bus_map_device(Bus *bus, uint64_t base, uint64_t size, BusDevice device);
void bus_unmap(Bus *bus, int id);
void bus_set_region_flags(Bus *bus, int id, uint32_t flags);
/* Who answers a read or write (REGION_READ, REGION_WRITE) at an address; NULL for nobody. */
Region *bus_find(Bus *bus, uint64_t address, uint32_t access);

/* Has somebody been given the port for good? */
bool bus_port_taken(const Bus *bus, uint16_t port);
/* Ports [first, first + count). False where one is taken or no device number is free. */
bool bus_map_ports(Bus *bus, uint16_t first, uint32_t count, BusDevice device);
void bus_unmap_ports(Bus *bus, uint16_t first, uint32_t count);
/* A window, closed at first: its number, or -1 where there is no room for another. */
int bus_add_window(Bus *bus, BusDevice device);
/* The part of [first, first + count) that lies in the port space; count 0 closes the window. */
void bus_move_window(Bus *bus, int window, uint16_t first, uint32_t count);

uint64_t bus_read(Bus *bus, uint64_t address, unsigned size);
void bus_write(Bus *bus, uint64_t address, uint64_t value, unsigned size);
/* Copies to or from memory, as a DMA master or the host does; devices are accessed by bytes. */
void bus_read_block(Bus *bus, uint64_t address, void *data, size_t size);
void bus_write_block(Bus *bus, uint64_t address, const void *data, size_t size);
uint32_t port_read(Bus *bus, uint16_t port, unsigned size);
void port_write(Bus *bus, uint16_t port, uint32_t value, unsigned size);

#endif
