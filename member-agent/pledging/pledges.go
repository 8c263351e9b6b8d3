package pledging

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// probeRounds is how often the pledgers of a healthy primary are asked for nothing,
// to know beforehand that they would answer: every ten ticks.
const probeRounds = 20

// Pledges are those that one replica of the agent asks for and gives. Its methods
// are safe for concurrent use; Run is called once.
type Pledges struct {
	config  Config
	asker   *asker
	pledger *pledger
	peers   *peers
}

// New starts nothing.
func New(config Config) (*Pledges, error) {
	config = config.withDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	return &Pledges{config: config, asker: newAsker(config), pledger: newPledger(config), peers: newPeers(config)}, nil
}

// Register adds the service for other agents to a server whose clients show a
// certificate of the hub's CA.
func (p *Pledges) Register(server grpc.ServiceRegistrar) {
	agentv1.RegisterPledgesServer(server, &service{config: p.config, pledger: p.pledger, peers: p.peers})
}

// Run asks and keeps the record until ctx ends.
func (p *Pledges) Run(ctx context.Context) error {
	defer p.peers.close()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.pledger.run(ctx) })
	group.Go(func() error { return p.rounds(ctx) })
	return group.Wait()
}

// SetActive takes this replica's part. When it has returned false this replica
// gives no pledge any more.
func (p *Pledges) SetActive(active bool) { p.pledger.setActive(active) }

// Granted takes in a grant whose lease ends in remaining. It replaces what an
// earlier one said; the caller keeps their order.
func (p *Pledges) Granted(g *agentv1.Grant, remaining time.Duration) {
	p.pledger.granted(g)
	p.asker.granted(g, remaining)
}

// Saw takes in an epoch that a guard's volume holds.
func (p *Pledges) Saw(dataset *agentv1.DatasetKey, epoch int64) {
	p.pledger.saw(keyOf(dataset), epoch)
}

// Kept is for how much longer pledges keep the primary role at epoch that the
// newest grant names, for a copy that surely waits for waits; 0 if they do not. It
// is good only for a proof that answers a question which was asked no later than
// the waits were looked at.
func (p *Pledges) Kept(dataset *agentv1.DatasetKey, epoch int64, waits []string) time.Duration {
	return p.asker.kept(keyOf(dataset), epoch, waits)
}

// Yield returns when this cluster may accept a promotion at epoch, or acknowledge
// one elsewhere: the epoch is durable here and every pledge for an older one is
// over. Only the active replica can.
func (p *Pledges) Yield(ctx context.Context, incarnation uint64, dataset *agentv1.DatasetKey, epoch int64) error {
	return p.pledger.yield(ctx, incarnation, keyOf(dataset), epoch)
}

// Pledgers are whose pledge a primary of this cluster needs, and those of them
// that did not answer when they were last asked.
func (p *Pledges) Pledgers(dataset *agentv1.DatasetKey) (needed, missing []string) {
	needed, missing, _ = p.asker.pledgers(keyOf(dataset))
	return needed, missing
}

// rounds asks each half tick what is due, as pledge.Collector wants it. A pledger that does not answer holds up no
// other, and a question that is still open is not waited for.
func (p *Pledges) rounds(ctx context.Context) error {
	var asking sync.WaitGroup
	defer asking.Wait()
	tick := time.NewTicker(p.config.Lease.Tick / 2)
	defer tick.Stop()
	said := map[string]string{}
	for round := 0; ; round++ {
		p.peers.only(p.asker.endpoints())
		p.ask(ctx, p.asker.due(round%probeRounds == 0), &asking)
		said = p.report(said)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (p *Pledges) ask(ctx context.Context, questions []question, asking *sync.WaitGroup) {
	for _, q := range questions {
		asking.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 2*p.config.Lease.Tick)
			defer cancel()
			response, err := p.peers.ask(ctx, q.cluster, q.address, q.request)
			if ctx.Err() != context.Canceled {
				p.asker.answered(q, response, err)
			}
		})
	}
}

// report logs what has changed of who does not pledge.
func (p *Pledges) report(said map[string]string) map[string]string {
	now := p.asker.reasons()
	for who, why := range now {
		if said[who] == "" {
			p.config.Log.Warn("a pledge is not to be had; without it the primary ends with its lease", "role", who, "reason", why)
		}
	}
	for who := range said {
		if now[who] == "" {
			p.config.Log.Info("the pledge is to be had again", "role", who)
		}
	}
	return now
}
