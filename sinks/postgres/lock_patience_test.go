package postgres

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestLockPatience_IsSpentAndRegained(t *testing.T) {
	t.Parallel()
	synctest.Test(t, spendAndRegain) // time passes only while all wait
}

func spendAndRegain(t *testing.T) {
	t.Helper()
	const off = 5 * time.Millisecond // regained in a second
	near := func(p *lockPatience, want time.Duration) {
		t.Helper()
		if got := p.timeout(); got < want || got > want+off {
			t.Errorf("the timeout is %s, want %s", got, want)
		}
	}
	var p lockPatience
	near(&p, lockTimeout)
	p.spend(lockTimeout / 2)
	near(&p, lockTimeout/2)
	for range 100 {
		p.spend(lockTimeout)
	}
	near(&p, leastTimeout)
	if left := time.Until(p.whole); left > lockTimeout*lockShare {
		t.Errorf("a whole wait is allowed in %s, want at most %s", left, lockTimeout*lockShare)
	}
	p.whole = p.whole.Add(-lockTimeout * lockShare / 4)
	near(&p, lockTimeout/4)
	p.whole = time.Now()
	near(&p, lockTimeout)
	var none *lockPatience
	none.spend(lockTimeout)
	near(none, lockTimeout)
}
