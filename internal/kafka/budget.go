package kafka

import (
	"context"

	"golang.org/x/sync/semaphore"

	"tenantflow/internal/fetch"
)

// A Budget bounds the bytes of records and rows held by all partitions of a process together, so that memory does not
// depend on how many partitions it is assigned.
//
// A partition that waits for it must hold nothing that only it could give back: it therefore hands over the batch it
// has before it waits, and the batch's bytes come back when it is written.
type Budget struct {
	sem  *semaphore.Weighted
	size int64

	// inflating bounds, beside the budget, what decompressing takes beyond what a fetch claims. It is apart because a
	// reader that decompresses waits for the budget meanwhile, and must not hold a part of it that others wait for: a reader
	// that waits for this one holds nothing of either.
	inflating     *semaphore.Weighted
	inflatingSize int64
}

// NewBudget returns a budget of size bytes, at least what one fetch may bring. A quarter of it more may be used to
// decompress what is read; where one batch alone needs more than that, one at a time is decompressed.
func NewBudget(size int64) *Budget {
	size = max(size, fetch.MaxBytes)
	return &Budget{sem: semaphore.NewWeighted(size), size: size, inflating: semaphore.NewWeighted(size / 4), inflatingSize: size / 4}
}

func (b *Budget) tryAcquire(n int64) bool { return b.sem.TryAcquire(b.clamp(n)) }

func (b *Budget) acquire(ctx context.Context, n int64) error { return b.sem.Acquire(ctx, b.clamp(n)) }

func (b *Budget) release(n int64) {
	if n > 0 {
		b.sem.Release(b.clamp(n))
	}
}

// clamp keeps a single claim from being larger than everything there is, which could never be met.
func (b *Budget) clamp(n int64) int64 { return min(n, b.size) }
