package service

import (
	"runtime/debug"
	"testing"
)

// Not parallel: the limit is the process'.
func TestMemory_TheLimitFollowsWhatPartitionsRemember(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	m := memory{fixed: 1 << 40}
	m.grow(200 << 20)
	m.grow(-100 << 20)
	if got, want := debug.SetMemoryLimit(-1), int64(1<<40+150<<20); got != want {
		t.Errorf("the limit is %d bytes, want %d", got, want)
	}
	m.own = true
	m.grow(1 << 30)
	if got, want := debug.SetMemoryLimit(-1), int64(1<<40+150<<20); got != want {
		t.Errorf("with one of the operator's it is %d bytes, want %d", got, want)
	}
}
