/* Regions and ports. Lookups walk the short list of regions: they happen at TLB misses and device accesses only. */
#include "bus.h"

#include <stdlib.h>
#include <string.h>

#include "block.h"
#include "cpu.h"

/* The owners of ports on a bus without any: a bare processor needs no table of its own. */
static const uint8_t nobody[65536];

bool bus_init(Bus *bus)
{
    *bus = (Bus){.a20_mask = ~0ull, .next_id = 1, .port_device_count = 1, .port_owner = (uint8_t *)nobody};
    return true;
}

void bus_free(Bus *bus)
{
    free(bus->regions);
    if (bus->port_owner != nobody)
        free(bus->port_owner);
    free(bus->cpus);
    *bus = (Bus){0};
}

/* What a linear address means may have changed: forget every translation and every decoded block. */
static void remapped(Bus *bus)
{
    bus->found[0].last_byte = bus->found[1].last_byte = 0;
    for (uint32_t i = 0; i < bus->cpu_count; i++)
        cpu_forget_all(bus->cpus[i]);
}

void bus_set_a20(Bus *bus, bool enabled)
{
    bus->a20_masked = !enabled;
    bus_settle_a20(bus);
}

void bus_settle_a20(Bus *bus)
{
    bool masked = bus->a20_masked;
    for (uint32_t i = 0; i < bus->cpu_count; i++)
        masked = masked && !bus->cpus[i]->vmx.on;
    const uint64_t mask = masked ? ~(1ull << 20) : ~0ull;
    if (mask == bus->a20_mask)
        return;
    bus->a20_mask = mask;
    for (uint32_t i = 0; i < bus->cpu_count; i++) {
        tlb_flush_all(bus->cpus[i]);
        clock_leave(bus->cpus[i]->clock);
    }
}

static int map(Bus *bus, Region region)
{
    if (bus->region_count == bus->region_capacity) {
        uint32_t capacity = bus->region_capacity ? 2 * bus->region_capacity : 16;
        Region *regions = realloc(bus->regions, capacity * sizeof *regions);
        if (!regions)
            return -1;
        bus->regions = regions;
        bus->region_capacity = capacity;
    }
    region.id = bus->next_id++;
    bus->regions[bus->region_count++] = region;
    remapped(bus);
    return region.id;
}

int bus_map_memory(Bus *bus, uint64_t base, uint64_t size, uint8_t *host, uint8_t *pages, uint32_t flags)
{
    return map(bus, (Region){.flags = flags, .base = base, .size = size, .host = host, .pages = pages});
}

int bus_map_device(Bus *bus, uint64_t base, uint64_t size, BusDevice device)
{
    return map(bus, (Region){.flags = REGION_READ | REGION_WRITE, .base = base, .size = size, .device = device});
}

static Region *by_id(Bus *bus, int id)
{
    for (uint32_t i = 0; i < bus->region_count; i++)
        if (bus->regions[i].id == id)
            return &bus->regions[i];
    return NULL;
}

void bus_unmap(Bus *bus, int id)
{
    Region *region = by_id(bus, id);
    if (!region)
        return;
    size_t after = (size_t)(bus->regions + bus->region_count - region - 1);
    memmove(region, region + 1, after * sizeof *region);
    bus->region_count--;
    remapped(bus);
}

void bus_set_region_flags(Bus *bus, int id, uint32_t flags)
{
    Region *region = by_id(bus, id);
    if (!region || region->flags == flags)
        return;
    region->flags = flags;
    remapped(bus);
}

Region *bus_find(Bus *bus, uint64_t address, uint32_t access)
{
    const uint64_t page = address & ~PAGE_MASK, last_byte = address | PAGE_MASK;
    const unsigned kind = access == REGION_WRITE;
    if (bus->found[kind].last_byte == last_byte)
        return bus->found[kind].region;
    bool alone = true;
    for (uint32_t i = bus->region_count; i-- > 0;) {
        Region *region = &bus->regions[i];
        const bool answers = region->flags & access;
        /* A ROM takes the writes to it and drops them. */
        const bool swallows = access == REGION_WRITE && (region->flags & REGION_ROM);
        if (!answers && !swallows)
            continue;
        if (address - region->base < region->size) {
            if (!answers)
                return NULL;
            if (alone && region->host) {
                bus->found[kind].last_byte = last_byte;
                bus->found[kind].region = region;
            }
            return region;
        }
        if (region->base - page < PAGE_SIZE || page - region->base < region->size)
            alone = false;
    }
    return NULL;
}

bool bus_port_taken(const Bus *bus, uint16_t port)
{
    const uint8_t owner = bus->port_owner[port];
    for (uint32_t i = 0; i < bus->window_count; i++)
        if (owner == bus->windows[i].number)
            return false;
    return owner != 0;
}

static bool own_table(Bus *bus)
{
    if (bus->port_owner != nobody)
        return true;
    uint8_t *owner = calloc(sizeof nobody, 1);
    if (owner)
        bus->port_owner = owner;
    return owner != NULL;
}

bool bus_map_ports(Bus *bus, uint16_t first, uint32_t count, BusDevice device)
{
    if (count > 65536u - first || bus->port_device_count == 256)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (bus_port_taken(bus, (uint16_t)(first + i)))
            return false;
    if (!own_table(bus))
        return false;
    uint32_t number = 1;
    while (number < bus->port_device_count && memcmp(&bus->port_devices[number], &device, sizeof device))
        number++;
    if (number == bus->port_device_count)
        bus->port_devices[bus->port_device_count++] = device;
    memset(bus->port_owner + first, (int)number, count);
    return true;
}

/* Gives ports that nobody has for good to the windows that stand there. */
static void settle_ports(Bus *bus, uint32_t first, uint32_t count)
{
    for (uint32_t port = first; port < first + count; port++) {
        if (bus_port_taken(bus, (uint16_t)port))
            continue;
        bus->port_owner[port] = 0;
        for (uint32_t i = bus->window_count; i-- > 0;)
            if (port - bus->windows[i].first < bus->windows[i].count)
                bus->port_owner[port] = bus->windows[i].number;
    }
}

void bus_unmap_ports(Bus *bus, uint16_t first, uint32_t count)
{
    if (count > 65536u - first)
        count = 65536u - first;
    if (bus->port_owner == nobody)
        return;
    memset(bus->port_owner + first, 0, count);
    settle_ports(bus, first, count);
}

int bus_add_window(Bus *bus, BusDevice device)
{
    if (bus->window_count == PORT_WINDOWS || bus->port_device_count == 256 || !own_table(bus))
        return -1;
    bus->windows[bus->window_count] = (PortWindow){.number = (uint8_t)bus->port_device_count};
    bus->port_devices[bus->port_device_count++] = device;
    return (int)bus->window_count++;
}

void bus_move_window(Bus *bus, int window, uint16_t first, uint32_t count)
{
    PortWindow *moved = &bus->windows[window];
    const PortWindow old = *moved;
    moved->first = first;
    moved->count = count < 65536u - first ? count : 65536u - first;
    settle_ports(bus, old.first, old.count);
    settle_ports(bus, moved->first, moved->count);
}

static uint64_t ones(unsigned size) { return size >= 8 ? ~0ull : (1ull << 8 * size) - 1; }

/* An access that crosses a page goes to each page apart; a device sees aligned halves no larger than it was asked. */
uint64_t bus_read(Bus *bus, uint64_t address, unsigned size)
{
    address &= bus->a20_mask;
    if ((address & PAGE_MASK) + size > PAGE_SIZE) {
        uint64_t value = 0;
        for (unsigned i = 0; i < size; i++)
            value |= bus_read(bus, address + i, 1) << 8 * i;
        return value;
    }
    Region *region = bus_find(bus, address, REGION_READ);
    if (!region)
        return ones(size);
    if (!region->host)
        return region->device.read(region->device.self, address, size) & ones(size);
    uint64_t value = 0;
    memcpy(&value, region->host + (address - region->base), size);
    return value;
}

void bus_write(Bus *bus, uint64_t address, uint64_t value, unsigned size)
{
    address &= bus->a20_mask;
    if ((address & PAGE_MASK) + size > PAGE_SIZE) {
        for (unsigned i = 0; i < size; i++)
            bus_write(bus, address + i, value >> 8 * i, 1);
        return;
    }
    Region *region = bus_find(bus, address, REGION_WRITE);
    if (!region)
        return;
    if (!region->host) {
        region->device.write(region->device.self, address, value & ones(size), size);
        return;
    }
    uint64_t offset = address - region->base;
    memcpy(region->host + offset, &value, size);
    uint8_t *page = &region->pages[offset >> 12];
    if (*page & PAGE_CODE)
        for (uint32_t i = 0; i < bus->cpu_count; i++)
            blocks_written(bus->cpus[i], address, size);
    *page |= PAGE_DIRTY;
}

void bus_read_block(Bus *bus, uint64_t address, void *data, size_t size)
{
    uint8_t *to = data;
    while (size) {
        uint64_t pa = address & bus->a20_mask;
        size_t chunk = PAGE_SIZE - (pa & PAGE_MASK);
        if (chunk > size)
            chunk = size;
        Region *region = bus_find(bus, pa, REGION_READ);
        if (region && region->host)
            memcpy(to, region->host + (pa - region->base), chunk);
        else
            for (size_t i = 0; i < chunk; i++)
                to[i] = (uint8_t)bus_read(bus, pa + i, 1);
        to += chunk;
        address += chunk;
        size -= chunk;
    }
}

void bus_write_block(Bus *bus, uint64_t address, const void *data, size_t size)
{
    const uint8_t *from = data;
    while (size) {
        uint64_t pa = address & bus->a20_mask;
        size_t chunk = PAGE_SIZE - (pa & PAGE_MASK);
        if (chunk > size)
            chunk = size;
        Region *region = bus_find(bus, pa, REGION_WRITE);
        if (region && region->host) {
            uint64_t offset = pa - region->base;
            memcpy(region->host + offset, from, chunk);
            uint8_t *page = &region->pages[offset >> 12];
            if (*page & PAGE_CODE)
                for (uint32_t i = 0; i < bus->cpu_count; i++)
                    blocks_written(bus->cpus[i], pa, chunk);
            *page |= PAGE_DIRTY;
        } else {
            for (size_t i = 0; i < chunk; i++)
                bus_write(bus, pa + i, from[i], 1);
        }
        from += chunk;
        address += chunk;
        size -= chunk;
    }
}

/* A wide access to a range of byte ports is split where the owner changes (82441FX: byte lanes of the ISA bus). */
static bool same_owner(const Bus *bus, uint16_t port, unsigned size)
{
    for (unsigned i = 1; i < size; i++)
        if (bus->port_owner[(uint16_t)(port + i)] != bus->port_owner[port])
            return false;
    return true;
}

uint32_t port_read(Bus *bus, uint16_t port, unsigned size)
{
    if (size > 1 && !same_owner(bus, port, size)) {
        uint32_t value = 0;
        for (unsigned i = 0; i < size; i++)
            value |= port_read(bus, (uint16_t)(port + i), 1) << 8 * i;
        return value;
    }
    const BusDevice *device = &bus->port_devices[bus->port_owner[port]];
    return device->read ? (uint32_t)(device->read(device->self, port, size) & ones(size)) : (uint32_t)ones(size);
}

void port_write(Bus *bus, uint16_t port, uint32_t value, unsigned size)
{
    if (size > 1 && !same_owner(bus, port, size)) {
        for (unsigned i = 0; i < size; i++)
            port_write(bus, (uint16_t)(port + i), value >> 8 * i & 0xff, 1);
        return;
    }
    const BusDevice *device = &bus->port_devices[bus->port_owner[port]];
    if (device->write)
        device->write(device->self, port, value & ones(size), size);
}
