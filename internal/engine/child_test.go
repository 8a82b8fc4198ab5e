package engine

import (
	"fmt"
	"os/exec"
	"testing"
)

// A signal is sent before it takes effect: a process that was busy went on, answered and forked behind the freeze.
func TestFreeze_NothingRunsWhenItReturns(t *testing.T) {
	t.Parallel()
	c, err := spawn(exec.Command("sh", "-c", "(while :; do /bin/true; done) & while :; do :; done"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.kill(); err != nil {
			t.Error(err)
		}
	})
	for range 50 {
		family, err := c.freeze()
		if err != nil {
			t.Fatal(err)
		}
		for _, pid := range family {
			if state := stateOf(fmt.Sprintf("/proc/%d/stat", pid)); state != 'T' && !gone(pid) {
				t.Fatalf("process %d of %v is in state %c", pid, family, state)
			}
			for _, child := range childrenOf(pid) {
				if state := stateOf(fmt.Sprintf("/proc/%d/stat", child)); state != 'T' && !gone(child) {
					t.Fatalf("process %d, a child of %d, is in state %c", child, pid, state)
				}
			}
		}
		if err := c.thaw(); err != nil {
			t.Fatal(err)
		}
	}
}
