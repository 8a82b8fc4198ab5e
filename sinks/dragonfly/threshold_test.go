package dragonfly_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"tenantflow/internal/tier"
	"tenantflow/sinks/dragonfly"
)

// lists are lists of thresholds with what is special about them.
func lists(r *rand.Rand) [][]int {
	all := [][]int{nil, {80, 100}, {100}, {1}, {1000}, {50, 120, 300}, {1, 2, 3, 4, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 100, 101, 150, 1000}}
	for range 5 {
		all = append(all, r.Perm(tier.MaxThreshold)[:1+r.IntN(tier.MaxThresholds)])
		for i := range all[len(all)-1] {
			all[len(all)-1][i]++
		}
	}
	return all
}

// A reachedAt is a threshold event as the model has it.
type reachedAt struct {
	user    string
	percent int
	limit   int64
}

// A thresholdModel says which events are due of one user after the other, by what was counted, in exact arithmetic of its own.
type thresholdModel struct {
	calls map[string]int64
	due   map[reachedAt]int64 // the calls at which it became due
}

func (m *thresholdModel) count(user string, n, limit int64, percents []int) {
	from := m.calls[user]
	m.calls[user] += n
	for _, percent := range percents {
		event := reachedAt{user, percent, limit}
		for calls := from + 1; calls <= m.calls[user]; calls++ { // one call after the other: by the first that makes it
			if _, there := m.due[event]; !there && calls*100 >= limit*int64(percent) {
				m.due[event] = calls
			}
		}
	}
}

// Random lists, limits and lists that change, many thresholds at once, calls that are repeated or cut otherwise, partitions beside each other,
// events that are cleared late: what is answered as due is what the model has, each cleared once in normal running.
func TestThresholds_OfAnyListAreDueOnce(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	h := newThresholdHistory(t, store, r)
	for range 1500 {
		h.step(t)
	}
	h.settle(t)
	h.compare(t)
	for event, n := range h.published {
		if n != 1 {
			t.Errorf("%+v was published %d times", event, n)
		}
	}
	// A lost store: the same events in a later epoch, by the same limits and lists, give the same set.
	if err := client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	before := len(h.published)
	h.recount(t)
	if len(h.published) != before {
		t.Errorf("a recount has published %d different events, want %d", len(h.published), before)
	}
	for event, n := range h.published {
		if n != 2 {
			t.Errorf("%+v was published %d times with the recount", event, n)
		}
	}
}

// A thresholdCall is a call that was made.
type thresholdCall struct {
	partition int
	batch     dragonfly.Batch
	call      dragonfly.Call
}

// A thresholdHistory is users whose limits and lists change, counted by partitions in a store and by the model.
type thresholdHistory struct {
	r         *rand.Rand
	model     thresholdModel
	sessions  []*dragonfly.Session
	next      []int64 // offset of each partition
	lists     []*dragonfly.Thresholds
	percents  [][]int
	list      map[string]int
	limit     map[string]int64
	log       []thresholdCall
	pending   [][]dragonfly.Due // of each partition: answered, and not cleared
	published map[reachedAt]int
	calls     map[reachedAt]int64
}

func newThresholdHistory(t *testing.T, store *dragonfly.Store, r *rand.Rand) *thresholdHistory {
	t.Helper()
	h := &thresholdHistory{r: r, model: thresholdModel{map[string]int64{}, map[reachedAt]int64{}}, next: make([]int64, 3), pending: make([][]dragonfly.Due, 3),
		percents: lists(r), list: map[string]int{}, limit: map[string]int64{}, published: map[reachedAt]int{}, calls: map[reachedAt]int64{}}
	for _, percents := range h.percents {
		h.lists = append(h.lists, dragonfly.NewThresholds(percents))
	}
	for i := range h.next {
		h.sessions = append(h.sessions, session(t, store, i))
	}
	return h
}

// step counts some events of a user, or repeats a call.
func (h *thresholdHistory) step(t *testing.T) {
	t.Helper()
	if n := len(h.log); n > 0 && h.r.IntN(8) == 0 { // a redelivery, also cut otherwise
		again := h.log[n-1-h.r.IntN(min(n, 20))]
		if h.r.IntN(2) == 0 {
			again.batch.To-- // within what is counted
		}
		counted, err := h.sessions[again.partition].Count(t.Context(), again.batch, []dragonfly.Call{again.call}, nil)
		if err != nil || counted[0].Outcome != dragonfly.Known {
			t.Fatalf("%+v again: %+v, %v", again, counted, err)
		}
		h.answered(again.partition, counted)
		return
	}
	user := fmt.Sprintf("u%d", h.r.IntN(12))
	if _, known := h.limit[user]; !known || h.r.IntN(25) == 0 {
		h.limit[user] = []int64{0, 1, 3, 10, 50, 77, 1000}[h.r.IntN(7)]
	}
	if _, known := h.list[user]; !known || h.r.IntN(25) == 0 {
		h.list[user] = h.r.IntN(len(h.lists))
	}
	c := thresholdCall{partition: h.r.IntN(len(h.next)), call: call(user, h.limit[user], 1+h.r.IntN(6))}
	if h.r.IntN(10) == 0 {
		c.call.Events += h.r.IntN(400)
	}
	c.call.Thresholds = h.lists[h.list[user]]
	from := h.next[c.partition]
	c.batch = batch(1<<12, from, from+2*int64(c.call.Events)+1)
	h.next[c.partition] = c.batch.To
	for i := range c.call.Events {
		c.call.Offsets = append(c.call.Offsets, from+2*int64(i))
	}
	h.count(t, c)
	h.model.count(user, int64(c.call.Events), c.call.Limit, h.percents[h.list[user]])
	h.log = append(h.log, c)
	if p := h.r.IntN(len(h.next)); h.r.IntN(3) == 0 {
		h.clear(t, p)
	}
}

func (h *thresholdHistory) count(t *testing.T, c thresholdCall) {
	t.Helper()
	counted, err := h.sessions[c.partition].Count(t.Context(), c.batch, []dragonfly.Call{c.call}, nil)
	if err != nil || counted[0].Outcome != dragonfly.Added {
		t.Fatalf("%+v: %+v, %v", c, counted, err)
	}
	h.answered(c.partition, counted)
}

// answered keeps what is to be published. What is still due is answered again.
func (h *thresholdHistory) answered(partition int, counted []dragonfly.Counted) {
	for _, d := range counted[0].Due {
		if !slices.Contains(h.pending[partition], d) {
			h.pending[partition] = append(h.pending[partition], d)
		}
	}
}

// clear publishes what a partition has to, and clears it.
func (h *thresholdHistory) clear(t *testing.T, partition int) {
	t.Helper()
	for _, d := range h.pending[partition] {
		event := reachedAt{d.User, d.Percent, d.Limit}
		h.published[event]++
		h.calls[event] = d.Calls
	}
	if err := h.sessions[partition].Clear(t.Context(), h.pending[partition]); err != nil {
		t.Fatal(err)
	}
	h.pending[partition] = nil
}

func (h *thresholdHistory) settle(t *testing.T) {
	t.Helper()
	for p := range h.next {
		h.clear(t, p)
	}
}

func (h *thresholdHistory) recount(t *testing.T) {
	t.Helper()
	for _, c := range h.log {
		c.batch.Epoch++
		h.count(t, c)
	}
	h.settle(t)
	h.compare(t)
}

// compare holds what was published against the model.
func (h *thresholdHistory) compare(t *testing.T) {
	t.Helper()
	for event, calls := range h.model.due {
		if h.published[event] == 0 {
			t.Errorf("%+v was not published; it became due at %d calls", event, calls)
		} else if h.calls[event] != calls {
			t.Errorf("%+v was published with %d calls, want %d", event, h.calls[event], calls)
		}
	}
	for event := range h.published {
		if _, due := h.model.due[event]; !due {
			t.Errorf("%+v was published, and is not reached", event)
		}
	}
}

// Lists that change, as while two processes with different catalogues count, or limits that come back, publish nothing twice.
func TestThresholds_TwoListsAtOnceShareWhatIsReached(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	s, other := session(t, store, 0), session(t, store, 1)
	few, more := dragonfly.NewThresholds([]int{50, 100}), dragonfly.NewThresholds([]int{100, 20, 50, 75})
	var got []string
	for i := range int64(12) {
		c, by := call("u", 10, 1), s
		if c.Thresholds = few; i%2 == 1 {
			c.Thresholds, by = more, other
		}
		due := count(t, by, batch(1, 10*i, 10*i+10), c)[0].Due
		for _, d := range due {
			got = append(got, fmt.Sprintf("%d at %d", d.Percent, d.Calls))
		}
		if err := by.Clear(t.Context(), due); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"20 at 2", "50 at 5", "75 at 8", "100 at 10"}; !slices.Equal(got, want) {
		t.Errorf("due were %q, want %q", got, want)
	}
	marks := client.HGet(t.Context(), dragonfly.QuotaKey("u", today()), "marks").Val()
	if want := " 10/1e2s/- 10/0k1e232s/- 20:10 50:10 75:10 100:10"; sorted(marks) != sorted(want) {
		t.Errorf("marks are %q, want %q in some order", marks, want)
	}
}

func sorted(words string) string {
	all := strings.Fields(words)
	slices.Sort(all)
	return strings.Join(all, " ")
}

// The list is sent only where the script asks for it: once for each threshold, whatever their number.
func TestThresholds_OfALongListAreSentWhenTheyAreReached(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	s := session(t, store, 0)
	var percents []int
	for percent := 5; percent <= 100; percent += 5 {
		percents = append(percents, percent)
	}
	long := dragonfly.NewThresholds(percents)
	before := evalshas(t, client.Info(t.Context(), "commandstats").Val())
	due := 0
	for i := range int64(200) {
		c := call("u", 100, 1)
		c.Thresholds = long
		due += len(count(t, s, batch(1, 10*i, 10*i+10), c)[0].Due)
	}
	// Nothing was cleared: each call answers what is due so far, and none of that is looked for again.
	want := 0
	for calls := 1; calls <= 200; calls++ {
		want += min(calls, 100) / 5
	}
	if due != want {
		t.Errorf("%d answers of something due, want %d", due, want)
	}
	// 200 calls, one of them without the script, and 20 once more.
	if n := evalshas(t, client.Info(t.Context(), "commandstats").Val()) - before; n != 221 {
		t.Errorf("evalsha was called %d times, want 221", n)
	}
}

func evalshas(t *testing.T, info string) (n int) {
	t.Helper()
	if _, stat, found := strings.Cut(info, "cmdstat_evalsha:calls="); found {
		if _, err := fmt.Sscanf(stat, "%d,", &n); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// Limits at which a product with a percentage would not fit, and thresholds that no counter reaches.
func TestThresholds_OfHugeLimits(t *testing.T) {
	t.Parallel()
	store, client, _ := open(t)
	s := session(t, store, 0)
	all := dragonfly.NewThresholds([]int{1, 80, 100, 1000})
	const most = 1 << 53 // where counters stop
	for i, c := range []struct {
		limit, before int64
		want          []int
	}{
		{999_999_999_999_999_999, 0, nil}, {999_999_999_999_999_999, most - 5, nil}, {most * 100, most - 5, nil}, {most * 100, most - 3, []int{1}},
		{most, 1000, nil}, {most, most - 5, []int{1, 80}}, {most, most - 3, []int{1, 80, 100}}, {most / 10, most - 3, []int{1, 80, 100, 1000}}, {most/10 + 1, most, []int{1, 80, 100}},
	} {
		user := fmt.Sprintf("u%d", i)
		if err := client.HSet(t.Context(), dragonfly.QuotaKey(user, today()), "api_calls", c.before).Err(); err != nil {
			t.Fatal(err)
		}
		one := call(user, c.limit, 3)
		one.Thresholds = all
		var got []int
		for _, d := range count(t, s, batch(1, int64(10*i), int64(10*i)+10), one)[0].Due {
			got = append(got, d.Percent)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%d and 3 calls of %d: due are %v, want %v", c.before, c.limit, got, c.want)
		}
	}
}

func TestNewThresholds_OfNoneIsNone(t *testing.T) {
	t.Parallel()
	if got := dragonfly.NewThresholds(nil); got != nil {
		t.Errorf("%+v", got)
	}
	store, client, _ := open(t)
	c := call("u", 0, 3)
	c.Thresholds = dragonfly.NewThresholds([]int{})
	if got := count(t, session(t, store, 0), batch(1, 0, 10), c)[0]; got.Outcome != dragonfly.Added || len(got.Due) != 0 {
		t.Errorf("%+v", got)
	}
	if client.HExists(t.Context(), dragonfly.QuotaKey("u", today()), "marks").Val() {
		t.Error("marks were written")
	}
}
