package pledging

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tripod.dev/tripod/failover/pledge"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// errInactive is what a replica that is not the active one answers.
var errInactive = errors.New("this replica of the agent is not the active one")

// named is what the newest grant says of one dataset of this cluster.
type named struct {
	incarnation uint64
	epoch       int64
	primary     string
	peers       []string
}

// pledger is the side that promises. It is safe for concurrent use.
type pledger struct {
	config Config

	mu      sync.Mutex
	wanted  bool // this replica is the active one, as far as it was told
	terms   int  // counts the times that it became active
	book    *pledge.Book
	longest time.Duration // that the book pledges for
	durable Promises      // stored
	// What the hub has said since this process started; it outlives a book.
	incarnation uint64
	epochs      map[string]int64
	grant       map[string]named // nil before the first grant, of this life or an earlier one
	ttl         time.Duration
	wake        chan struct{} // there is something to store
}

func newPledger(c Config) *pledger {
	return &pledger{config: c, epochs: map[string]int64{}, ttl: c.Lease.TTL, wake: make(chan struct{}, 1)}
}

func keyOf(d *agentv1.DatasetKey) string { return d.GetNamespace() + "/" + d.GetName() }

func (p *pledger) touch() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// setActive takes this replica's part. After it has returned false no pledge is
// given; after true, none before the record was read.
func (p *pledger) setActive(active bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if active == p.wanted {
		return
	}
	p.wanted, p.book = active, nil
	p.terms++
	p.touch()
}

// run reads the record when this replica has become active, and stores what was
// seen since, until ctx ends.
func (p *pledger) run(ctx context.Context) error {
	for {
		if err := p.open(ctx); err != nil && ctx.Err() == nil {
			p.config.Log.Warn("the record of pledges is not available; none is given", "error", err)
		}
		retry := time.NewTimer(p.config.Lease.Tick)
		select {
		case <-ctx.Done():
			retry.Stop()
			return ctx.Err()
		case <-p.wake:
		case <-retry.C:
		}
		retry.Stop()
	}
}

// open begins the book of a replica that has just become active, and stores what
// it has learnt since. It does nothing when there is nothing to do.
func (p *pledger) open(ctx context.Context) error {
	p.mu.Lock()
	term, begun, wanted := p.terms, p.book != nil, p.wanted
	seen, stored := p.seenLocked()
	p.mu.Unlock()
	if !wanted || begun && stored {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.config.Lease.TTL)
	defer cancel()
	all, err := p.config.Record.Keep(ctx, seen)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.storedLocked(all)
	if p.terms == term && !begun {
		p.beginLocked()
	}
	return nil
}

// storedLocked takes what is durable now. Answers may come in any order.
func (p *pledger) storedLocked(all Promises) {
	p.durable.TTL = max(p.durable.TTL, all.TTL)
	if p.durable.Epochs == nil {
		p.durable.Epochs = map[string]int64{}
	}
	for dataset, epoch := range all.Epochs {
		p.durable.Epochs[dataset] = max(p.durable.Epochs[dataset], epoch)
	}
}

// beginLocked counts a pledge from now: what the replica before this one has
// promised is not known.
func (p *pledger) beginLocked() {
	times := p.config.Lease
	times.TTL = max(p.ttl, p.durable.TTL)
	p.longest = times.TTL
	p.book = pledge.NewBook(times, p.config.Clock())
	p.book.Granted(p.incarnation)
	for _, known := range []map[string]int64{p.durable.Epochs, p.epochs} {
		for dataset, epoch := range known {
			p.book.Saw(dataset, epoch)
		}
	}
	p.config.Log.Info("this replica gives pledges", "datasets", len(p.grant), "ttl", times.TTL)
}

// seenLocked is what should be durable, and whether it is.
func (p *pledger) seenLocked() (seen Promises, stored bool) {
	seen, stored = Promises{Epochs: map[string]int64{}, TTL: p.ttl}, p.ttl <= p.durable.TTL
	for dataset, epoch := range p.epochs {
		if epoch > p.durable.Epochs[dataset] {
			seen.Epochs[dataset], stored = epoch, false
		}
	}
	return seen, stored
}

// granted takes in what the hub gives this cluster, now or in an earlier life of
// the agent.
func (p *pledger) granted(g *agentv1.Grant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.incarnation = max(p.incarnation, g.GetIncarnation())
	p.ttl = max(p.ttl, time.Duration(g.GetTtlMillis())*time.Millisecond)
	p.grant = map[string]named{}
	for _, role := range g.GetRoles() {
		n := named{incarnation: g.GetIncarnation(), epoch: role.GetEpoch(), primary: role.GetPrimary()}
		for _, peer := range role.GetPeers() {
			n.peers = append(n.peers, peer.GetCluster())
		}
		p.grant[keyOf(role.GetDataset())] = n
		p.sawLocked(keyOf(role.GetDataset()), role.GetEpoch())
	}
	if p.book != nil && p.ttl > p.longest {
		p.book = nil // a pledge is longer than the start was counted for: start again
		p.terms++
	}
	if p.book != nil {
		p.book.Granted(p.incarnation)
	}
	if _, stored := p.seenLocked(); !stored {
		p.touch()
	}
}

// saw takes in an epoch that a directive or a guard's volume names.
func (p *pledger) saw(dataset string, epoch int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sawLocked(dataset, epoch)
}

func (p *pledger) sawLocked(dataset string, epoch int64) {
	p.epochs[dataset] = max(p.epochs[dataset], epoch)
	if p.book != nil {
		p.book.Saw(dataset, epoch)
	}
}

// answer gives pledges to the agent of cluster, or says why not. It fails when
// this replica is not the active one.
func (p *pledger) answer(cluster string, request *agentv1.PledgeRequest) (*agentv1.PledgeResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// Tenure is looked at after the lock is taken and before the time is: a process
	// that stops in between has promised nothing, or before the next one begins.
	if p.book == nil || !p.config.Tenure() {
		return nil, errInactive
	}
	response := &agentv1.PledgeResponse{}
	for _, role := range request.GetRoles() {
		reason := p.refusalLocked(cluster, role)
		if reason == "" {
			r := pledge.Request{Incarnation: role.GetIncarnation(), Epoch: role.GetEpoch(), For: time.Duration(request.GetTtlMillis()) * time.Millisecond}
			if verdict := p.book.Ask(keyOf(role.GetDataset()), r, p.config.Clock()); verdict != pledge.Pledged {
				reason = verdict.String()
			}
		}
		response.Answers = append(response.Answers, &agentv1.PledgeAnswer{Pledged: reason == "", Reason: reason})
	}
	return response, nil
}

// refusalLocked is why cluster cannot hold the role that it asks for, as far as
// the newest grant of this cluster tells.
func (p *pledger) refusalLocked(cluster string, role *agentv1.PledgedRole) string {
	n, ok := p.grant[keyOf(role.GetDataset())]
	switch {
	case !ok:
		return "this cluster holds no copy of the dataset"
	case !slices.Contains(n.peers, cluster):
		return cluster + " holds no copy of the dataset"
	case role.GetIncarnation() == n.incarnation && role.GetEpoch() == n.epoch && n.primary != "" && n.primary != cluster:
		return fmt.Sprintf("%s is the primary of epoch %d", n.primary, n.epoch)
	}
	return ""
}

// yield returns when this cluster may take part in epoch of a dataset, as its
// primary or by acknowledging another's: the epoch is durable here, and every
// pledge for an older one is over. From the call on none is given any more.
func (p *pledger) yield(ctx context.Context, incarnation uint64, dataset string, epoch int64) error {
	p.mu.Lock()
	term, book := p.terms, p.book
	if book == nil {
		p.mu.Unlock()
		return fmt.Errorf("dataset %s: %w, or has just become so", dataset, errInactive)
	}
	p.incarnation = max(p.incarnation, incarnation)
	book.Granted(incarnation)
	p.sawLocked(dataset, epoch)
	durable := p.durable.Epochs[dataset] >= epoch
	p.mu.Unlock()
	if !durable {
		all, err := p.config.Record.Keep(ctx, Promises{Epochs: map[string]int64{dataset: epoch}})
		if err != nil {
			return fmt.Errorf("dataset %s: remember epoch %d before it is acknowledged: %w", dataset, epoch, err)
		}
		p.mu.Lock()
		p.storedLocked(all)
		p.mu.Unlock()
	}
	for {
		free, err := p.free(term, dataset)
		if err != nil || free <= 0 {
			return err
		}
		timer := time.NewTimer(free)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("dataset %s: the last pledge to an older primary is over in %v: %w", dataset, free.Round(time.Millisecond), ctx.Err())
		}
	}
}

// free is how long until every pledge given is over. Tenure is looked at after the
// epoch was stored: whoever becomes active later reads it.
func (p *pledger) free(term int, dataset string) (time.Duration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terms != term || p.book == nil || !p.config.Tenure() {
		return 0, fmt.Errorf("dataset %s: %w any more", dataset, errInactive)
	}
	return p.book.FreeAt(dataset) - p.config.Clock(), nil
}
