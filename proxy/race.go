package proxy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

// race tries every way in turn until one succeeds: the next one starts when the
// last has failed, or has not succeeded within stagger, and then beside it
// (RFC 8305, 5). The first success wins; the others are ended and waited for,
// and what they reached nevertheless is discarded. Without a success the error
// holds every failure.
func race[W, T any](ctx context.Context, stagger time.Duration, ways []W, try func(context.Context, W) (T, error), discard func(T)) (T, error) {
	var none T
	switch len(ways) {
	case 0:
		return none, errors.New("no address")
	case 1: // nobody to race against
		reached, err := try(ctx, ways[0])
		if err != nil {
			return none, joined([]error{err})
		}
		return reached, nil
	}
	type result struct {
		reached T
		err     error
	}
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan result, len(ways))
	var running sync.WaitGroup
	defer func() {
		cancel()
		running.Wait()
		close(results)
		for r := range results {
			if r.err == nil {
				discard(r.reached)
			}
		}
	}()
	var failed []error
	next := time.NewTimer(0)
	defer next.Stop()
	for started := 0; len(failed) < len(ways); {
		var turn <-chan time.Time
		if started < len(ways) {
			turn = next.C
		}
		select {
		case <-turn:
			way := ways[started]
			started++
			running.Go(func() {
				reached, err := try(ctx, way)
				results <- result{reached, err}
			})
			next.Reset(stagger)
		case r := <-results:
			if r.err == nil {
				return r.reached, nil
			}
			failed = append(failed, r.err)
			next.Reset(0)
		}
	}
	return none, joined(failed)
}

// joined is one error of several, in one line and each text once. A denial is
// one only if there is nothing else: then it is returned as it is.
func joined(errs []error) error {
	var texts []string
	var all failures
	for _, err := range errs {
		if _, ok := errors.AsType[*denied](err); ok {
			continue
		}
		all.errs = append(all.errs, err)
		if text := err.Error(); !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	if len(texts) == 0 {
		return errors.Join(errs...)
	}
	all.text = strings.Join(texts, "; ")
	return &all
}

// failures are several errors in one line.
type failures struct {
	text string
	errs []error
}

func (f *failures) Error() string   { return f.text }
func (f *failures) Unwrap() []error { return f.errs }
