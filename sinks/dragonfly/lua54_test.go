package dragonfly_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tenantflow/internal/engine/enginetest"
)

// Dragonfly runs scripts with Lua 5.4, Redis with 5.1. Both are given the same random calls here, and must answer the
// same and leave the same keys.
func TestScriptsDoTheSameUnderLua54(t *testing.T) {
	t.Parallel()
	o, err := redis.ParseURL(enginetest.Redis(t).URL())
	if err != nil {
		t.Fatal(err)
	}
	database := func(n int) *redis.Client {
		own := *o
		own.DB, own.Protocol = n, 2 // as scripts see answers
		client := redis.NewClient(&own)
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
	old, other := database(0), database(1)
	lua := newLua54(t, other)
	seed := rand.Uint64()
	g := &scriptCalls{Rand: rand.New(rand.NewPCG(seed, 0)), now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC).UnixMilli()}
	answers := map[string]bool{}
	for i := range 2000 {
		c := g.next(old)
		source, err := os.ReadFile(c.script)
		if err != nil {
			t.Fatal(err)
		}
		want, err := old.Eval(t.Context(), string(source), c.keys, c.args...).Result()
		if err != nil {
			t.Fatalf("seed %d: %+v: %v", seed, c, err)
		}
		got, err := lua.run(string(source), c.keys, c.args)
		if err != nil || got != fmt.Sprint(want) {
			t.Fatalf("seed %d: %+v: Lua 5.1 answers %q, Lua 5.4 %q, %v", seed, c, want, got, err)
		}
		kind, _, _ := strings.Cut(got, " ")
		answers[c.script+" "+kind] = true
		if i%10 != 0 {
			continue // reading them all takes longer than the calls
		}
		if one, two := keysOf(t, old), keysOf(t, other); !reflect.DeepEqual(one, two) {
			t.Fatalf("seed %d: %+v: the keys are\n%v\nafter Lua 5.1 and\n%v\nafter Lua 5.4", seed, c, one, two)
		}
	}
	for _, a := range []string{"count.lua counted", "count.lua known", "count.lua behind", "count.lua left", "count.lua offsets", "count.lua later", "clear.lua 0", "clear.lua 1",
		"note.lua noted", "note.lua missing", "note.lua epoch", "note.lua incarnation", "begin.lua 1", "begin.lua 2", "cache_put.lua 0", "cache_put.lua 1", "cache_drop.lua 0", "cache_drop.lua 1",
		"resum.lua 0", "resum.lua 1", "doubt.lua 0", "doubt.lua 1", "guard.lua 0", "guard.lua 1", "release.lua 0", "release.lua 1", "release.lua 2",
		"reserve.lua granted", "reserve.lua known", "reserve.lua other", "reserve.lua exceeded", "reserve.lua crowded", "reserve.lua day"} {
		if !answers[a] {
			t.Errorf("seed %d: no call was answered with %q", seed, a)
		}
	}
}

type scriptCall struct {
	script string
	keys   []string
	args   []any
}

// scriptCalls makes calls over few keys, so that they meet each other.
type scriptCalls struct {
	*rand.Rand
	now int64 // of reservations, milliseconds
}

func (r *scriptCalls) number(from, to int) string { return strconv.Itoa(from + r.IntN(to-from+1)) }

func (r *scriptCalls) next(present *redis.Client) scriptCall {
	ctx := context.Background()
	user := "{u" + r.number(1, 2) + "}"
	counters, document := "quota:"+user+":2026-11-23", "subscription:"+user
	sentinel := "quota_sentinel:{" + r.number(0, 2) + "}"
	switch r.IntN(15) {
	case 11:
		args := []any{"r-" + r.number(1, 3)}
		for i := 4; i <= 12; i++ {
			if r.IntN(4) == 0 {
				args = append(args, "r-"+strconv.Itoa(i))
			}
		}
		return scriptCall{"release.lua", []string{holdsOf(counters)}, args}
	case 12, 13, 14:
		if r.IntN(8) == 0 {
			return scriptCall{"guard.lua", []string{sentinel}, []any{"a1", "a1!", r.number(1, 3), "s" + r.number(1, 2), r.number(1, 1<<40), []string{"", "0"}[r.IntN(2)]}}
		}
		return r.reserve(counters)
	case 10:
		if r.IntN(2) == 0 {
			field := []string{"api_calls", "data_points", "a1.0"}[r.IntN(3)]
			return scriptCall{"testdata/tamper.lua", []string{counters}, []any{field, r.number(0, 50), expiry}}
		}
		if r.IntN(3) == 0 {
			return scriptCall{"doubt.lua", []string{sentinel}, []any{"a1", r.number(1, 3) + " - 2 x 0"}}
		}
		return scriptCall{"resum.lua", []string{counters}, nil}
	case 0:
		return scriptCall{"begin.lua", []string{sentinel}, []any{"a1", r.number(0, 3), r.number(1, 3), "- 2 x 0", "7000"}}
	case 1, 2:
		return scriptCall{"note.lua", []string{sentinel}, []any{"a1", r.number(1, 3), "a1.0", r.number(0, 1), r.number(1, 1<<40), "9 0 x 8 z", "7000"}}
	case 3:
		args := []any{"80:5:4:a1.0:7"}
		for _, d := range strings.Fields(present.HGet(ctx, counters, "marks").Val()) {
			if r.IntN(2) == 0 {
				args = append(args, d)
			}
		}
		return scriptCall{"clear.lua", []string{counters}, args}
	case 4:
		version := r.number(1, 9)
		if r.IntN(8) == 0 {
			version = "9007199254740992"
		}
		origin := []string{"a", "a", "a", "b"}[r.IntN(4)]
		documents := []string{`{"version":` + version + `,"cached_from":"` + origin + `"}`, "[" + version + "]", `{"version":"x","cached_from":"a"}`,
			`{"version":99999999999999999999,"cached_from":"a"}`, "no document", `{"version":2.5,"cached_from":"a"}`, ""}
		return scriptCall{"cache_put.lua", []string{document}, []any{documents[max(0, r.IntN(12)-5)], version, origin, "7000"}}
	case 5:
		if r.IntN(4) == 0 {
			return scriptCall{"cache_drop.lua", []string{counters}, []any{"1", "a"}} // no string
		}
		return scriptCall{"cache_drop.lua", []string{document}, []any{r.number(1, 9), []string{"a", "b"}[r.IntN(2)]}}
	default:
		return r.count(counters)
	}
}

func holdsOf(counters string) string { return strings.Replace(counters, "quota:", "quota_holds:", 1) }

// reserve is a call whose clock goes on, so that holds end. The keys themselves live longer than the test.
func (r *scriptCalls) reserve(counters string) scriptCall {
	r.now += r.Int64N(20_000)
	day := r.now / 86_400_000 * 86_400
	if r.IntN(20) == 0 {
		day += 86_400
	}
	limit := func(most int) string {
		if r.IntN(3) == 0 {
			return ""
		}
		return r.number(0, most)
	}
	return scriptCall{"reserve.lua", []string{counters, holdsOf(counters)}, []any{"r-" + r.number(1, 12), r.number(1, 2), r.number(0, 1), r.number(100_000, 300_000),
		limit(40), limit(1 << 42), strconv.FormatInt(day, 10), r.number(1, 8), strconv.FormatInt(r.now, 10)}}
}

func (r *scriptCalls) count(counters string) scriptCall {
	// The epoch seldom moves on, so that counters grow.
	epoch := "65536"
	if r.IntN(20) == 0 {
		epoch = r.number(65535, 65538)
	}
	limit, least, note, list := "", "", "", ""
	if n := r.IntN(60); n > 0 {
		percents := [][]int{{80, 100}, {1}, {10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 150, 1000}}[r.IntN(3)]
		limit = strconv.Itoa(n)
		for i, percent := range percents {
			calls := strconv.Itoa((n*percent + 99) / 100)
			if i == 0 {
				least = calls
			}
			list += strings.Repeat(" ", min(i, 1)) + strconv.Itoa(percent) + ":" + calls
		}
		note = fmt.Sprintf(" %d/%d/", n, len(percents))
	}
	from := 1<<40 + r.IntN(200)
	events, points, offsets := 1+r.IntN(5), 0, ""
	for i := range events {
		points += r.IntN(1 << r.IntN(40))
		if r.IntN(5) > 0 {
			offsets += strconv.Itoa(3 * i)
		}
		offsets += ","
	}
	voids := ""
	if r.IntN(3) == 0 {
		voids = " "
		for range 1 + r.IntN(3) {
			voids += "v" + r.number(1, 12) + ":" + r.number(0, 1000) + ","
			offsets += "v," + strings.Repeat("99,", events/3)
		}
	}
	offsets = list + ";" + offsets
	if r.IntN(3) == 0 || list == "" {
		offsets = "" // left out, to be asked for
	}
	mode := []string{"clear", "clear", "clear", "keep", "adopt"}[r.IntN(5)]
	keys, holds := []string{counters}, []any(nil)
	for i := 1; i <= 12 && r.IntN(2) == 0; i++ {
		if len(holds) == 0 {
			keys = append(keys, holdsOf(counters))
		}
		holds = append(holds, "r-"+strconv.Itoa(i))
	}
	return scriptCall{"count.lua", keys, append([]any{"a1." + r.number(0, 2), epoch, mode, strconv.Itoa(from), strconv.Itoa(from + 1 + r.IntN(30)),
		strconv.Itoa(events), strconv.Itoa(points) + voids, expiry, limit, least, note, offsets}, holds...)}
}

// expiry is far enough ahead for the test, and near enough for Dragonfly, which takes no more than eight years.
var expiry = strconv.FormatInt(time.Now().Add(72*time.Hour).Unix(), 10)

// keysOf reads all keys, with their types and, to the hour, when they expire.
func keysOf(t *testing.T, client *redis.Client) map[string]any {
	t.Helper()
	keys, err := client.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	for _, key := range keys {
		expires, err := client.ExpireTime(t.Context(), key).Result()
		if err != nil || expires < 0 {
			t.Fatalf("%s expires %v, %v", key, expires, err)
		}
		values[key+" expires"] = expires.Round(time.Hour)
		switch kind := client.Type(t.Context(), key).Val(); kind {
		case "hash":
			values[key] = client.HGetAll(t.Context(), key).Val()
		case "set":
			values[key] = client.SMembersMap(t.Context(), key).Val()
		case "string":
			values[key] = client.Get(t.Context(), key).Val()
		default:
			t.Fatalf("%s is a %s", key, kind)
		}
	}
	return values
}

// lua54 is a running interpreter whose commands go to a database.
type lua54 struct {
	client *redis.Client
	in     io.Writer
	out    *bufio.Reader
}

func newLua54(t *testing.T, client *redis.Client) *lua54 {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), enginetest.Lua54(t), "testdata/lua54.lua")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Errorf("the interpreter: %v", err)
		}
	})
	return &lua54{client, in, bufio.NewReader(out)}
}

// run runs a script and returns its answer as text.
func (l *lua54) run(source string, keys []string, args []any) (string, error) {
	line := fmt.Sprintf("{%s, %s, %s}", luaText(source), luaValue(keys), luaValue(args))
	for {
		if _, err := io.WriteString(l.in, line+"\n"); err != nil {
			return "", err
		}
		kind, values, err := l.receive()
		if err != nil {
			return "", err
		}
		switch kind {
		case "call":
			command := make([]any, len(values))
			for i, v := range values {
				command[i] = v
			}
			answer, err := l.client.Do(context.Background(), command...).Result()
			switch {
			case errors.Is(err, redis.Nil):
				line = "false"
			case err != nil:
				line = "{err = " + luaText(err.Error()) + "}"
			default:
				line = luaValue(answer)
			}
		case "answer":
			return strings.Join(values, " "), nil
		default:
			return "", errors.New(strings.Join(values, " "))
		}
	}
}

// receive reads what the interpreter says. No value of a command or of an answer may be other than text or an integer.
func (l *lua54) receive() (kind string, values []string, err error) {
	var n, size int
	if _, err := fmt.Fscanf(l.out, "%s %d\n", &kind, &n); err != nil {
		return "", nil, fmt.Errorf("read from the interpreter: %w", err)
	}
	for range n {
		var class string
		if _, err := fmt.Fscanf(l.out, "%s %d\n", &class, &size); err != nil {
			return "", nil, fmt.Errorf("read from the interpreter: %w", err)
		}
		value := make([]byte, size+1)
		if _, err := io.ReadFull(l.out, value); err != nil {
			return "", nil, fmt.Errorf("read from the interpreter: %w", err)
		}
		if kind != "error" && class != "string" && class != "integer" {
			return "", nil, fmt.Errorf("a %s in a %s: %s", class, kind, value[:size])
		}
		values = append(values, string(value[:size]))
	}
	return kind, values, nil
}

// luaText is a text as an expression of Lua, in one line.
func luaText(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '"' && c != '\\' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\%03d`, c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// luaValue is a value as an expression of Lua: nothing is false.
func luaValue(v any) string {
	switch v := v.(type) {
	case nil:
		return "false"
	case string:
		return luaText(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case []string:
		var items []string
		for _, item := range v {
			items = append(items, luaText(item))
		}
		return "{" + strings.Join(items, ", ") + "}"
	case []any:
		var items []string
		for _, item := range v {
			items = append(items, luaValue(item))
		}
		return "{" + strings.Join(items, ", ") + "}"
	default:
		panic(fmt.Sprintf("%T", v))
	}
}
