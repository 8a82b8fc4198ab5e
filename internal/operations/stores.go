package operations

import (
	"context"
	"slices"
	"time"
)

// pingHistory is how many answers are kept: 10 minutes.
const pingHistory = int(10 * time.Minute / pingEvery)

// pingOf asks a store now and then whether it answers.
func pingOf(t Target) *gatherer[Store] {
	state := Store{Store: t.Name, State: Unknown, Since: time.Now().UTC()}
	g := &gatherer[Store]{from: t.Name, every: pingEvery, timeout: pingTimeout, data: Store{Store: t.Name, State: Unknown, History: []*float64{}}}
	turn := func(to string) {
		if state.State != to {
			state.State, state.Since = to, time.Now().UTC()
		}
	}
	// What is known of a store that does not answer is that it does not: this too is news.
	publish := func(latency *float64) Store {
		state.LatencyMS = latency
		state.History = append(state.History, latency)
		state.History = slices.Clone(state.History[max(0, len(state.History)-pingHistory):])
		return state
	}
	g.take = func(ctx context.Context) (Store, error) {
		if t.Ping == nil {
			turn(Unset)
			state.History = []*float64{}
			return state, nil
		}
		began := time.Now()
		err := t.Ping(ctx)
		if err != nil {
			turn(Down)
			g.note(publish(nil))
			return Store{}, err
		}
		turn(Up)
		ms := float64(time.Since(began).Microseconds()/10) / 100
		return publish(&ms), nil
	}
	return g
}

// note keeps data that comes with a problem. It counts as new.
func (g *gatherer[T]) note(data T) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.data, g.taken = data, time.Now()
}
