package main

import (
	"net/http"
	"syscall"
	"testing"
)

func TestRun_SIGUSR1MakesTheLogLevelDebugAndBack(t *testing.T) {
	t.Parallel()
	p := start(t, "tenantflow", append(deadStores(), "TENANTFLOW_LOG_LEVEL=info"), "run", "--only", "usage")
	for _, change := range []string{`"from":"INFO","to":"DEBUG"`, `"from":"DEBUG","to":"INFO"`} {
		p.signal(t, syscall.SIGUSR1)
		eventually(t, func() bool { return p.seen.Has(change) })
	}
	if status, _ := get(t, p.url+"/livez"); status != http.StatusOK {
		t.Errorf("/livez answers %d", status)
	}
	p.signal(t, syscall.SIGTERM)
	if log, code := p.wait(t); code != exitDone {
		t.Errorf("exit code %d; log:\n%s", code, log)
	}
}
