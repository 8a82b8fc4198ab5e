package directory

import (
	"fmt"
	"sync"
	"testing"
)

func TestAMemoryIsBoundedAndKeepsWhatIsInUse(t *testing.T) {
	t.Parallel()
	m := newMemory[int](10_000)
	m.put("used", &entry[int]{value: new(int)})
	for i := range 200_000 {
		m.put(fmt.Sprint("key", i), &entry[int]{})
		if i%10 == 0 && m.get("used") == nil {
			t.Fatalf("what is in use was dropped after %d others", i)
		}
	}
	if n := m.len(); n > 10_000 {
		t.Errorf("it holds %d entries", n)
	}
	if m.get("key199999") == nil || m.get("key0") != nil {
		t.Error("it dropped the newest, or kept the oldest")
	}
}

func TestAMemoryForgetsWhatNobodyAsksFor(t *testing.T) {
	t.Parallel()
	m := newMemory[int](1000)
	m.put("idle", &entry[int]{})
	m.put("used", &entry[int]{})
	for range 3 {
		m.rotate()
		m.get("used")
	}
	if m.get("idle") != nil || m.get("used") == nil {
		t.Errorf("idle is %v, used is %v", m.get("idle"), m.get("used"))
	}
}

func TestAMemoryServesManyAtOnce(t *testing.T) {
	t.Parallel()
	m := newMemory[int](256)
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range 20_000 {
				key := fmt.Sprint((i*7 + worker) % 500)
				if e := m.get(key); e == nil {
					m.put(key, &entry[int]{user: key})
				} else if e.user != key {
					t.Errorf("%s is %s", key, e.user)
				}
				if i%1000 == 0 {
					m.rotate()
				}
			}
		})
	}
	all.Wait()
}
