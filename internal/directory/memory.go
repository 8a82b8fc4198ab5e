package directory

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// An entry is one answer in the process' own memory. Only seen changes after it was put there.
type entry[T any] struct {
	value   *T
	company string // whose changes make it old
	user    string // likewise; empty in what belongs to a whole company
	expires int64  // nanoseconds since the directory's start
	// seen is the epoch of changes up to which the entry is known to be as new as they are.
	seen atomic.Uint64
	// shown is when a quota block was last handed over for it, as expires is counted; 0: never.
	shown atomic.Int64
}

// shards is how many locks a memory has, a power of two. There are more of them than processors, so that two readers
// seldom meet on one.
const shards = 64

// A memory holds entries by key, at most about as many as it was made for. It has two generations: when the newer one is
// full, the older one is dropped and the newer takes its place. What is asked for in the older one moves to the newer
// one, so what is in use stays.
type memory[T any] struct {
	seed   maphash.Seed
	each   int // entries of one shard's generation
	shards [shards]shard[T]
}

type shard[T any] struct {
	mu           sync.RWMutex
	newer, older map[string]*entry[T]
	_            [64]byte // the locks of two shards must not share a cache line
}

func newMemory[T any](entries int) *memory[T] {
	m := &memory[T]{seed: maphash.MakeSeed(), each: max(entries/(2*shards), 1)}
	for i := range m.shards {
		m.shards[i].newer = map[string]*entry[T]{}
	}
	return m
}

func (m *memory[T]) shard(key string) *shard[T] {
	return &m.shards[maphash.String(m.seed, key)%shards]
}

// get returns the entry of a key, or nil. It may be one that must not be used any more.
func (m *memory[T]) get(key string) *entry[T] {
	s := m.shard(key)
	s.mu.RLock()
	e := s.newer[key]
	if e != nil {
		s.mu.RUnlock()
		return e
	}
	e = s.older[key]
	s.mu.RUnlock()
	if e != nil {
		s.mu.Lock()
		// Unless another goroutine has put another there in between.
		if s.newer[key] == nil && s.older[key] == e {
			s.put(key, e, m.each)
		}
		s.mu.Unlock()
	}
	return e
}

// put keeps an entry. The memory keeps the key's string alive: give it one that is not part of something larger.
func (m *memory[T]) put(key string, e *entry[T]) {
	s := m.shard(key)
	s.mu.Lock()
	s.put(key, e, m.each)
	s.mu.Unlock()
}

func (s *shard[T]) put(key string, e *entry[T], each int) {
	if len(s.newer) >= each && s.newer[key] == nil {
		s.rotate()
	}
	s.newer[key] = e
	delete(s.older, key)
}

func (s *shard[T]) rotate() {
	s.older = s.newer
	s.newer = make(map[string]*entry[T], len(s.older))
}

// rotate drops what has not been asked for since the last call, so that idle entries give their memory back.
func (m *memory[T]) rotate() {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		s.rotate()
		s.mu.Unlock()
	}
}

// len counts the entries, those that must not be used any more included.
func (m *memory[T]) len() int {
	n := 0
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		n += len(s.newer) + len(s.older)
		s.mu.RUnlock()
	}
	return n
}
