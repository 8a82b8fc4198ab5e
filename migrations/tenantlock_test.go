package migrations_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestLocks_NoLoginCanTakeThem(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	a, b := d.company("a", "free"), d.company("b", "free")
	conn, err := pgx.Connect(t.Context(), d.dsn(d.login("app", "tenant_"+a)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	// The keys that versions before this one have used: of company b, and of migrations.
	if _, err := conn.Exec(t.Context(), "SELECT pg_advisory_lock(1952870756, hashtext($1)), pg_advisory_lock($2)", b, int64(0x746e746d69677231)); err != nil {
		t.Fatal(err)
	}
	execPostgres(t, d.tables, "SET lock_timeout = '2s'", fmt.Sprintf("SELECT lock_company('%s')", b))
	if _, err := d.tables.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestLocks_OneTransactionHasACompany(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	first, err := d.tables.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Rollback() }()
	if _, err := first.ExecContext(t.Context(), "SELECT lock_company('unknown'), lock_company('unknown')"); err != nil {
		t.Fatal(err)
	}
	lock := func(company string) error {
		other, err := d.tables.DB().BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = other.Rollback() }()
		if _, err := other.ExecContext(t.Context(), "SET LOCAL lock_timeout = '50ms'"); err != nil {
			t.Fatal(err)
		}
		_, err = other.ExecContext(t.Context(), "SELECT lock_company($1)", company)
		return err
	}
	if err := lock("unknown"); err == nil {
		t.Error("two transactions have the lock of a company that is not registered")
	}
	if err := lock("another"); err != nil {
		t.Error(err)
	}
	if err := first.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := lock("unknown"); err != nil {
		t.Error(err)
	}
}

func TestEmails_AreUniqueWhateverTheirCase(t *testing.T) {
	t.Parallel()
	d := newTenantDB(t)
	a, b := d.company("a", "pro"), d.company("b", "pro")
	put := func(company, user, email string) error {
		_, err := d.tables.DB().ExecContext(t.Context(), "SELECT tenant_user_put($1, $2, $3, now())", company, user+company, email)
		return err
	}
	for _, ok := range []error{put(a, "u1", "Ann@X.example"), put(b, "u1", "ann@x.example"), put(a, "u1", "ann@x.example"), put(a, "u2", "bob@x.example")} {
		if ok != nil {
			t.Error(ok)
		}
	}
	for _, refused := range []error{put(a, "u3", "ANN@x.example"), put(a, "u2", "aNN@x.example")} {
		if refused == nil {
			t.Error("two users of one company have emails that differ by case only")
		}
	}
	// As versions before this one have left it.
	execPostgres(t, d.tables, fmt.Sprintf("UPDATE user_directory SET email = 'ANN@x.example' WHERE user_id = 'u2%s'", a))
	if err := put(a, "u2", "ANN@x.example"); err != nil {
		t.Errorf("a user keeps an email that was taken before: %v", err)
	}
}
