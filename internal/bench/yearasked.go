package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"tenantflow/internal/yearmodel"
)

// A question is asked of the service over HTTP.
type question struct {
	name, path string // with %s for a company, or without
	goal       time.Duration
	// analysis is what the model answers; nil: it has no answer, and only the time is measured.
	analysis *yearmodel.Analysis
	platform bool // it is about all companies, and the model has an answer as long as no others have come
}

// questions are what is asked, in this order. What the service does not serve is left out of the report.
func (y *yearBench) questions() []question {
	var all []question
	for _, a := range yearmodel.Analyses() {
		all = append(all, question{a.Name, "/v1/companies/%s/" + a.Path, 100 * time.Millisecond, &a, false})
	}
	month := y.year.Now.AddDate(0, 0, -y.year.Now.Day()).Format("2006-01") // the last whole one
	return append(all,
		question{"business-metrics", "/v1/business-metrics", time.Second, nil, true},
		question{"billing", "/v1/companies/%s/billing/" + month, 500 * time.Millisecond, nil, false})
}

// measureAnswers asks about every company: cold, warm and beside live usage. Every answer of the first and of the last round is compared.
func (y *yearBench) measureAnswers(ctx context.Context, d dataset) error {
	for _, cache := range []string{"MARK", "UNCOMPRESSED"} {
		if _, err := y.clickhouse.Query(ctx, "SYSTEM DROP "+cache+" CACHE"); err != nil {
			return err
		}
	}
	var asked []question
	for _, q := range y.questions() {
		took, served, err := y.round(ctx, q, true)
		if err != nil {
			return err
		}
		if !served {
			y.say("%s: this service does not serve %s", Analytics, q.path)
			continue
		}
		asked = append(asked, q)
		y.Asked = append(y.Asked, AnswerTime{Name: q.name, Goal: float64(q.goal.Milliseconds()), Cold: timesOf(took)})
	}
	for i, q := range asked {
		var all []time.Duration
		for range q.rounds() {
			took, _, err := y.round(ctx, q, false)
			if err != nil {
				return err
			}
			all = append(all, took...)
		}
		y.Asked[i].Warm = timesOf(all)
		y.say("%s: %s: p95 %.1f ms cold, %.1f ms warm", Analytics, q.name, y.Asked[i].Cold.P95, y.Asked[i].Warm.P95)
	}
	if err := y.besideUsage(ctx, d, asked); err != nil {
		return err
	}
	for _, q := range asked {
		if _, _, err := y.round(ctx, q, true); err != nil {
			return err
		}
	}
	return nil
}

// besideUsage asks while usage of other companies comes in.
func (y *yearBench) besideUsage(ctx context.Context, d dataset, asked []question) error {
	g, err := steadyEvents(warmUp + steadyTime)
	if err != nil {
		return err
	}
	took := make([][]time.Duration, len(asked))
	y.others = true
	var wrong error
	measured := time.Now().Add(warmUp)
	err = y.steadily(ctx, d, g, func(ctx context.Context) error {
		for n := 0; ctx.Err() == nil; n++ { // the questions take turns, so that all of them meet the same load
			i := n % len(asked)
			c := y.year.Companies[n/len(asked)*37%len(y.year.Companies)]
			if c.Unknown() {
				continue
			}
			began := time.Now()
			if _, status, err := y.get(context.WithoutCancel(ctx), asked[i].of(c)); err != nil || status != http.StatusOK {
				wrong = errors.Join(err, fmt.Errorf("the answer to %s beside usage has the status %d", asked[i].of(c), status))
				return wrong
			}
			if began.After(measured) {
				took[i] = append(took[i], time.Since(began))
			}
		}
		return nil
	})
	switch {
	case wrong != nil:
		return errors.Join(wrong, y.running.alive())
	case err != nil: // the machine is too busy for the load; what was measured without it stands
		y.say("%s: nothing was measured beside usage: %s", Analytics, err)
		return y.running.alive()
	}
	for i := range asked {
		if y.Asked[i].Live = timesOf(took[i]); y.Asked[i].Live == nil {
			return fmt.Errorf("%s was not answered once beside usage", asked[i].name)
		}
		y.say("%s: %s beside usage: p95 %.1f ms of %d", Analytics, asked[i].name, y.Asked[i].Live.P95, y.Asked[i].Live.Asked)
	}
	return nil
}

// platformAsked is how often a question about all companies is asked in a round.
const platformAsked = 10

// rounds are how many are made when the service is warm.
func (q question) rounds() int {
	if q.analysis != nil {
		return 5
	}
	return 2
}

// of is the path of a question about a company.
func (q question) of(c *yearmodel.Company) string {
	if strings.Contains(q.path, "%s") {
		return fmt.Sprintf(q.path, c.ID)
	}
	return q.path
}

// round asks a question about every company, and compares the answers if that is wanted; false: the service has no such endpoint.
func (y *yearBench) round(ctx context.Context, q question, compares bool) (took []time.Duration, served bool, err error) {
	var found []yearmodel.Difference
	for n, c := range y.year.Companies {
		if q.platform && n == platformAsked {
			break
		}
		var answer []byte
		var status int
		var began time.Time
		for { // again where a day has ended meanwhile
			began = time.Now()
			if answer, status, err = y.get(ctx, q.of(c)); err != nil {
				return nil, false, err
			}
			if began.UTC().Day() == time.Now().UTC().Day() {
				break
			}
		}
		lasted := time.Since(began)
		switch {
		case status == http.StatusNotFound && q.analysis == nil && len(took) == 0 && !c.Unknown():
			return nil, false, nil
		case status == http.StatusNotFound && c.Unknown():
			continue
		case status != http.StatusOK:
			return nil, false, fmt.Errorf("the answer to %s is %d: %s", q.of(c), status, answer)
		case c.Unknown() && q.analysis != nil:
			found = append(found, yearmodel.Difference{Company: c.ID, Field: q.name, Got: string(answer), Want: "404: it was purged"})
			continue
		}
		took = append(took, lasted)
		if compares {
			found = append(found, y.compare(q, c, began, answer)...)
			compares = !q.platform // once: the model takes seconds for it
		}
	}
	if len(found) > 0 {
		lines := make([]string, 0, shownAtMost)
		for _, d := range found[:min(len(found), shownAtMost)] {
			lines = append(lines, d.String())
		}
		return nil, false, fmt.Errorf("%d members of answers are not what the model says:\n%s", len(found), strings.Join(lines, "\n"))
	}
	return took, true, nil
}

// compare holds an answer against the model's.
func (y *yearBench) compare(q question, c *yearmodel.Company, at time.Time, answer []byte) (found []yearmodel.Difference) {
	looked := 0
	switch {
	case q.analysis != nil:
		looked, found = y.model.Compare(*q.analysis, c, at, answer)
	case q.platform && !y.others:
		looked, found = y.model.ComparePlatform(at, answer)
	default:
		return nil
	}
	y.Answers++
	y.Members += looked
	return found
}

// get asks the service.
func (y *yearBench) get(ctx context.Context, path string) (answer []byte, status int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+y.running.metrics+path, nil)
	if err != nil {
		return nil, 0, err
	}
	res, err := y.client.Do(r)
	if err != nil {
		return nil, 0, errors.Join(err, y.running.alive())
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	return answer, res.StatusCode, err
}
