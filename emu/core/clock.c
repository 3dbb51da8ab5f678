/* The event queue: a binary heap ordered by (cycle, sequence). */
#include "clock.h"

#include <stdlib.h>

void clock_init(Clock *clock, uint64_t hz) { *clock = (Clock){.hz = hz}; }

void clock_free(Clock *clock)
{
    free(clock->queue);
    clock->queue = NULL;
    clock->count = clock->capacity = 0;
}

static bool earlier(const Event *a, const Event *b)
{
    return a->cycle < b->cycle || (a->cycle == b->cycle && a->sequence < b->sequence);
}

static void sift_up(Clock *clock, uint32_t at)
{
    Event event = clock->queue[at];
    while (at > 0 && earlier(&event, &clock->queue[(at - 1) / 2])) {
        clock->queue[at] = clock->queue[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    clock->queue[at] = event;
}

static void sift_down(Clock *clock, uint32_t at)
{
    Event event = clock->queue[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= clock->count)
            break;
        if (child + 1 < clock->count && earlier(&clock->queue[child + 1], &clock->queue[child]))
            child++;
        if (!earlier(&clock->queue[child], &event))
            break;
        clock->queue[at] = clock->queue[child];
        at = child;
    }
    clock->queue[at] = event;
}

static uint32_t find(const Clock *clock, const void *owner, int id)
{
    uint32_t at = 0;
    while (at < clock->count && (clock->queue[at].owner != owner || clock->queue[at].id != id))
        at++;
    return at;
}

static void remove_at(Clock *clock, uint32_t at)
{
    clock->queue[at] = clock->queue[--clock->count];
    if (at < clock->count) {
        sift_down(clock, at);
        sift_up(clock, at);
    }
}

bool clock_schedule(Clock *clock, EventCallback *callback, void *owner, int id, uint64_t cycle)
{
    clock_cancel(clock, owner, id);
    if (clock->count == clock->capacity) {
        uint32_t capacity = clock->capacity ? 2 * clock->capacity : 16;
        Event *queue = realloc(clock->queue, capacity * sizeof *queue);
        if (!queue)
            return false;
        clock->queue = queue;
        clock->capacity = capacity;
    }
    clock->queue[clock->count] = (Event){cycle, clock->sequence++, callback, owner, id};
    sift_up(clock, clock->count++);
    /* The run loop set its horizon before this event was known. */
    if (cycle < clock->horizon) {
        uint64_t now = clock_now(clock);
        clock_set_horizon(clock, cycle > now ? cycle : now);
        clock_leave(clock);
    }
    return true;
}

void clock_cancel(Clock *clock, void *owner, int id)
{
    uint32_t at = find(clock, owner, id);
    if (at < clock->count)
        remove_at(clock, at);
}

uint64_t clock_due(const Clock *clock, const void *owner, int id)
{
    uint32_t at = find(clock, owner, id);
    return at < clock->count ? clock->queue[at].cycle : CYCLE_NEVER;
}

uint64_t clock_next(const Clock *clock) { return clock->count ? clock->queue[0].cycle : CYCLE_NEVER; }

void clock_run_due(Clock *clock)
{
    while (clock->count && clock->queue[0].cycle <= clock_now(clock)) {
        Event event = clock->queue[0];
        remove_at(clock, 0);
        event.callback(event.owner, event.id);
    }
}

uint64_t clock_ticks(const Clock *clock, uint64_t cycle, uint64_t numerator, uint64_t denominator)
{
    return (uint64_t)((unsigned __int128)cycle * numerator / ((unsigned __int128)clock->hz * denominator));
}

uint64_t clock_cycle_of_tick(const Clock *clock, uint64_t ticks, uint64_t numerator, uint64_t denominator)
{
    unsigned __int128 product = (unsigned __int128)ticks * clock->hz * denominator;
    return (uint64_t)((product + numerator - 1) / numerator);
}
