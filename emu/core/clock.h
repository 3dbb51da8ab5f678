/* One virtual clock and one ordered event queue.
 *
 * Time is a count of processor cycles. While guest code runs, the distance to the next point where the run loop must
 * look up (an event, a limit) is counted down: `horizon` is that point's cycle, `left` the distance to it. Everything
 * outside the instruction handlers reads the time with clock_now(). */
#ifndef EMU_CLOCK_H
#define EMU_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CYCLE_NEVER UINT64_MAX

typedef void EventCallback(void *owner, int id);

typedef struct Event {
    uint64_t cycle;    /* when it is due */
    uint64_t sequence; /* orders events of the same cycle by the time they were scheduled */
    EventCallback *callback;
    void *owner;
    int id;
} Event;

typedef struct Clock {
    uint64_t horizon;
    int64_t left;
    uint32_t leave;      /* set when the run loop must look up after the current instruction */
    uint32_t count;      /* events in the queue */
    uint32_t capacity;
    uint64_t sequence;
    uint64_t hz;         /* cycles a second of guest time */
    Event *queue;        /* a binary heap ordered by (cycle, sequence) */
} Clock;

static inline uint64_t clock_now(const Clock *clock) { return clock->horizon - (uint64_t)clock->left; }

/* Moves the horizon without moving the present. */
static inline void clock_set_horizon(Clock *clock, uint64_t horizon)
{
    clock->left += (int64_t)(horizon - clock->horizon);
    clock->horizon = horizon;
}

/* Makes the run loop look up after the current instruction. */
static inline void clock_leave(Clock *clock)
{
    clock->leave = 1;
    clock_set_horizon(clock, clock_now(clock));
}

void clock_init(Clock *clock, uint64_t hz);
void clock_free(Clock *clock);

/* Schedules callback(owner, id) at `cycle` (at once where that has passed), in place of one with the same owner and
 * id. Returns false when memory is exhausted. */
bool clock_schedule(Clock *clock, EventCallback *callback, void *owner, int id, uint64_t cycle);
void clock_cancel(Clock *clock, void *owner, int id);
/* The cycle an event is due at, CYCLE_NEVER where none is scheduled. */
uint64_t clock_due(const Clock *clock, const void *owner, int id);
uint64_t clock_next(const Clock *clock);
/* Runs the events due by now, in order. */
void clock_run_due(Clock *clock);

/* Ticks of a frequency of numerator/denominator hertz that have passed at `cycle`, and the first cycle at which
 * `ticks` have passed; exact. */
uint64_t clock_ticks(const Clock *clock, uint64_t cycle, uint64_t numerator, uint64_t denominator);
uint64_t clock_cycle_of_tick(const Clock *clock, uint64_t ticks, uint64_t numerator, uint64_t denominator);

#endif
