package retry_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"tenantflow/internal/retry"
)

var errAway = errors.New("the store is away")

func waiting(error) error { return nil }

func TestDo_TriesUntilItWorks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tries, noted := 0, 0
		began := time.Now()
		err := retry.Do(t.Context(), func() error {
			if tries++; tries < 30 {
				return errAway
			}
			return nil
		}, func(error) error { noted++; return nil })
		if err != nil || tries != 30 || noted != 29 {
			t.Errorf("%v after %d tries and %d notes, want nil, 30 and 29", err, tries, noted)
		}
		// Eight delays grow from 100 ms to 2 s, and twenty-one are about 2 s each.
		if took := time.Since(began); took < 20*time.Second || took > 80*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestDo_GivesUpWithTheErrorOfItsCaller(t *testing.T) {
	t.Parallel()
	fatal, tries := errors.New("a person has to act"), 0
	err := retry.Do(t.Context(), func() error { tries++; return errAway }, func(error) error { return fatal })
	if !errors.Is(err, fatal) || tries != 1 {
		t.Errorf("%v after %d tries, want %v after 1", err, tries, fatal)
	}
}

func TestDo_EndsWithItsContextAndTheLastFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := retry.Do(ctx, func() error { return errAway }, waiting); !errors.Is(err, errAway) {
			t.Errorf("%v, want %v", err, errAway)
		}
		if ctx.Err() == nil {
			t.Error("it gave up before its context ended")
		}
	})
}

func TestBackoff_StaysWithinItsBoundsAndBeginsAgain(t *testing.T) {
	t.Parallel()
	b := retry.Between(time.Second, 10*time.Second)
	longest := time.Duration(0)
	for range 50 {
		longest = max(longest, b.Next())
	}
	if longest < 5*time.Second || longest > 15*time.Second {
		t.Errorf("the longest delay is %s", longest)
	}
	b.Reset()
	if d := b.Next(); d < time.Second/2 || d > 3*time.Second/2 {
		t.Errorf("after a reset the first delay is %s", d)
	}
}

func TestPause_EndsWithTheCause(t *testing.T) {
	t.Parallel()
	cause := errors.New("told to stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := retry.Pause(ctx, time.Hour); !errors.Is(err, cause) {
		t.Errorf("%v, want %v", err, cause)
	}
}
