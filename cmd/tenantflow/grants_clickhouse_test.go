package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenantflow/internal/certs/certstest"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
)

// grantedClickHouse is a ClickHouse whose one user, default, has the rights of deploy/grants/clickhouse.sql for the service or for
// the migration, and those by which the engine of the tests itself works: it can't make users, but it holds the one it has to its rights.
type grantedClickHouse struct {
	*engine.ClickHouse
	t      *testing.T
	config string // a file that names the one with the users
	users  string
}

// enginesOwn are not in the file: inserts come as files, statements are ended by their mark, and a session begins in the database default.
var enginesOwn = []string{"GRANT FILE ON *.*", "GRANT READ, WRITE ON FILE", "GRANT KILL QUERY ON *.*", "GRANT SHOW DATABASES ON default.*"} //nolint:gochecknoglobals // a constant

var grantTo = regexp.MustCompile(`(?m)^(GRANT [^;]+) TO ([a-z_]+);$`)

func newGrantedClickHouse(t *testing.T) *grantedClickHouse {
	t.Helper()
	c := &grantedClickHouse{t: t, config: filepath.Join(t.TempDir(), "clickhouse.xml")}
	users := filepath.Join(filepath.Dir(c.config), "users.xml")
	certstest.Write(t, c.config, []byte("<clickhouse><users_config>"+users+"</users_config></clickhouse>\n"))
	c.users = users
	c.write([]string{"GRANT ALL ON *.*"})
	c.ClickHouse = enginetest.ClickHouse(t, func(o *engine.Options) { o.ClickHouseConfig = c.config })
	return c
}

func (c *grantedClickHouse) write(grants []string) {
	c.t.Helper()
	var queries strings.Builder
	for _, g := range grants {
		fmt.Fprintf(&queries, "<query>%s</query>", g)
	}
	certstest.Write(c.t, c.users, []byte("<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><default><password></password>"+
		"<networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota><grants>"+queries.String()+"</grants></default></users></clickhouse>\n"))
}

// be gives the user the rights of a login, but for those that leave says, and starts the engine again.
func (c *grantedClickHouse) be(login string, leave func(grant string) bool) {
	c.t.Helper()
	text, err := os.ReadFile("../../deploy/grants/clickhouse.sql")
	if err != nil {
		c.t.Fatal(err)
	}
	grants := append([]string(nil), enginesOwn...)
	for _, m := range grantTo.FindAllStringSubmatch(string(text), -1) {
		if m[2] == login && (leave == nil || !leave(m[1])) {
			grants = append(grants, m[1])
		}
	}
	c.write(grants)
	if err := c.Kill(); err != nil { // a stop would take seconds, and what was answered is on the disk
		c.t.Fatal(err)
	}
	if err := c.Start(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
}

func TestGrants_ClickHouseHoldsTheServiceToThem(t *testing.T) {
	t.Parallel()
	c := newGrantedClickHouse(t)
	environ := ownStores(t)
	environ[1] = "TENANTFLOW_CLICKHOUSE_DSN=" + c.DSN()
	environ = append(environ, "TENANTFLOW_HTTP_ADDR=127.0.0.1:0")
	c.be("tenantflow_migrate", nil)
	if _, errOut, code := tenantflow(t, environ, "migrate"); code != exitDone {
		t.Fatal(errOut)
	}
	c.be("tenantflow", nil)
	looked(t, environ, "config", "check", "--connect", "--only", "usage")
	p := start(t, "tenantflow", environ, "run", "--only", "usage")
	produce := func(id string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), id)
		line := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/test","type":"usage.recorded.v1","time":%q,"partitionkey":"acme","data":%s}`, id, time.Now().UTC().Format(time.RFC3339Nano), goodUsage)
		if err := os.WriteFile(file, []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, errOut, code := tenantflow(t, environ, "produce", "--topic", "usage.events", "--file", file); code != exitDone {
			t.Fatal(errOut)
		}
	}
	count := func(table string) string {
		t.Helper()
		answer, err := c.Query(t.Context(), "SELECT sum(total_api_calls) FROM tenantflow."+table)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(answer)
	}
	produce("first")
	produce("first") // a resend is looked up
	produce("second")
	eventually(t, func() bool { return count("usage_daily") == "2" })
	if out, errOut, code := tenantflow(t, environ, "verify"); code != exitDone {
		t.Errorf("verify: exit code %d: %s%s", code, out, errOut)
	}
	for _, denied := range []string{"CREATE TABLE tenantflow.mine (a Int8) ENGINE = MergeTree ORDER BY a", "DROP TABLE tenantflow.usage_tracking", "TRUNCATE TABLE tenantflow.usage_daily_store",
		"ALTER TABLE tenantflow.usage_tracking ADD COLUMN a Int8", "ALTER TABLE tenantflow.usage_tracking UPDATE revenue_attributed = 0 WHERE 1"} {
		if answer, err := c.Query(t.Context(), denied); err == nil || !strings.Contains(err.Error(), "ACCESS_DENIED") {
			t.Errorf("%s: %s, %v", denied, answer, err)
		}
	}

	// A right less is missed, and said.
	c.be("tenantflow", func(grant string) bool { return strings.Contains(grant, "ON tenantflow.usage_tracking") })
	produce("third")
	eventually(t, func() bool {
		_, body := get(t, p.url+"/readyz")
		return strings.Contains(body, "Not enough privileges")
	})
	c.be("tenantflow", nil)
	eventually(t, func() bool { return count("usage_daily") == "3" })
	p.signal(t, syscall.SIGTERM)
	if log, code := p.wait(t); code != exitDone {
		t.Errorf("exit code %d; log:\n%s", code, log)
	}
}
