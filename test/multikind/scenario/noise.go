package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/lab"
)

// NoiseConfig is what a person may choose about a campaign of noise.
type NoiseConfig struct {
	Lab lab.Config
	// Duration is how long disturbances go on; Seed chooses them, 0 by chance.
	Duration time.Duration
	Seed     uint64
	// Folder takes the clients' journals. Out gets the result, Tell what happens.
	Folder    string
	Out, Tell io.Writer
}

// NoiseResult is one JSON object: what a campaign saw.
type NoiseResult struct {
	Bench          string         `json:"bench"`
	Seed           uint64         `json:"seed"`
	Seconds        float64        `json:"seconds"`
	Disturbances   map[string]int `json:"disturbances"`
	FalseFailovers int64          `json:"falseFailovers"`
	Lost           int            `json:"lost"`
	Duplicated     int            `json:"duplicated"`
	TwoEpochs      int            `json:"two-epochs"`
}

// Noise disturbs a healthy fleet with what must never move a role: any one path cut
// for 20 s, all of them for 2 s, lost packets, agents that are killed, processes that
// stand still for less than a lease. It fails when a role moved or the ledger's audit
// finds a violation.
func Noise(ctx context.Context, config NoiseConfig) error {
	start := time.Now()
	tell := func(line string) { fmt.Fprintf(config.Tell, "%6.1fs  %s\n", time.Since(start).Seconds(), line) }
	if config.Seed == 0 {
		config.Seed = uint64(start.UnixNano())
	}
	journals, err := emptyJournals(config.Folder)
	if err != nil {
		return err
	}
	fleet, err := Boot(ctx, config.Lab, tell)
	if err != nil {
		return err
	}
	if err := fleet.Deploy(ctx); err != nil {
		return err
	}
	business, err := fleet.OpenBusiness(ctx, journals, fmt.Sprintf("noise%d", start.Unix()))
	if err != nil {
		return err
	}
	business.Start(ctx)
	defer func() { _ = business.Stop() }()
	result := NoiseResult{Bench: "noise", Seed: config.Seed, Disturbances: map[string]int{}}
	before, err := fleet.Dataset(ctx)
	if err != nil {
		return err
	}
	n := noise{fleet: fleet, random: rand.New(rand.NewPCG(config.Seed, 0))}
	began := time.Now()
	for time.Since(began) < config.Duration {
		name, err := n.disturb(ctx)
		if err != nil {
			return fmt.Errorf("disturb with %s (seed %d): %w", name, config.Seed, err)
		}
		result.Disturbances[name]++
		if err := business.AwaitTransfers(ctx, 50, time.Minute); err != nil {
			return fmt.Errorf("after %s (seed %d): %w", name, config.Seed, err)
		}
	}
	result.Seconds = seconds(time.Since(began))
	return business.judgeNoise(ctx, result, before, config.Out)
}

func (b *Business) judgeNoise(ctx context.Context, result NoiseResult, before *v1alpha1.Dataset, out io.Writer) error {
	if err := b.fleet.Repair(ctx); err != nil {
		return err
	}
	if err := b.fleet.AwaitClusters(ctx); err != nil {
		return err
	}
	after, err := b.fleet.Dataset(ctx)
	if err != nil {
		return err
	}
	report, err := b.AwaitCopies(ctx, 2*time.Minute)
	if err != nil {
		return err
	}
	result.FalseFailovers = after.Status.Epoch - before.Status.Epoch
	result.Lost, result.Duplicated, result.TwoEpochs = report.Lost, report.Duplicated, report.AcceptedByTwoEpochs
	if err := json.NewEncoder(out).Encode(result); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	if result.FalseFailovers != 0 {
		return errors.Join(report.Err(), fmt.Errorf("the role moved %d times, from %s at epoch %d to %s", result.FalseFailovers,
			before.Status.Primary, before.Status.Epoch, after.Status.Primary))
	}
	return report.Err()
}

// noise chooses what to disturb.
type noise struct {
	fleet  *Fleet
	random *rand.Rand
}

// disturb does one thing and undoes it.
func (n noise) disturb(ctx context.Context) (string, error) {
	kinds := []struct {
		name string
		do   func(context.Context) error
	}{
		{"path cut for 20 s", n.cutOne}, {"all paths cut for 2 s", n.cutAll}, {"5 % of packets lost for 20 s", n.lose},
		{"agents killed", n.killAgents}, {"process stands still for 3 s", n.pause},
	}
	kind := kinds[n.random.IntN(len(kinds))]
	n.fleet.tell(kind.name)
	return kind.name, kind.do(ctx)
}

func (n noise) center() string {
	centers := n.fleet.Lab.Centers()
	return centers[n.random.IntN(len(centers))].Name
}

func (n noise) cutOne(ctx context.Context) error {
	centers := n.fleet.Lab.Centers()
	i := n.random.IntN(len(centers))
	j := (i + 1 + n.random.IntN(len(centers)-1)) % len(centers)
	_, err := n.fleet.Inject(ctx, fault.Fault{Kind: fault.Cut, Center: centers[i].Name, Peer: centers[j].Name})
	return n.heal(ctx, 20*time.Second, err)
}

func (n noise) cutAll(ctx context.Context) error {
	centers := n.fleet.Lab.Centers()
	for i, a := range centers {
		for _, b := range centers[i+1:] {
			if _, err := n.fleet.Inject(ctx, fault.Fault{Kind: fault.Cut, Center: a.Name, Peer: b.Name}); err != nil {
				return err
			}
		}
	}
	return n.heal(ctx, 2*time.Second, nil)
}

func (n noise) heal(ctx context.Context, after time.Duration, err error) error {
	if err == nil {
		err = n.fleet.outlive(ctx, after)
	}
	if err != nil {
		return err
	}
	_, err = n.fleet.Inject(ctx, fault.Fault{Kind: fault.Heal})
	return err
}

// lossy drops one packet in twenty that comes into a center.
const lossy = `nft -f - <<'END'
table inet noise
delete table inet noise
table inet noise {
	chain arriving { type filter hook prerouting priority -310; iifname "eth0" numgen random mod 20 == 0 drop; }
}
END`

const lossless = `nft -f - <<'END'
table inet noise
delete table inet noise
END`

func (n noise) lose(ctx context.Context) error {
	for _, script := range []string{lossy, lossless} {
		for _, c := range n.fleet.Lab.Centers() {
			command, err := n.fleet.Lab.Command(ctx, c.Name, "bash", "-c", script)
			if err != nil {
				return err
			}
			if out, err := command.CombinedOutput(); err != nil {
				return fmt.Errorf("in %s: %w: %s", c.Name, err, strings.TrimSpace(string(out)))
			}
		}
		if script == lossy {
			if err := n.fleet.outlive(ctx, 20*time.Second); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n noise) killAgents(ctx context.Context) error {
	center := n.center()
	if _, err := n.fleet.Inject(ctx, fault.Fault{Kind: fault.Kill, Process: "agent", Center: center}); err != nil {
		return err
	}
	if err := n.agentsRun(ctx, center); err != nil {
		return err
	}
	return n.fleet.AwaitClusters(ctx)
}

// agentsRun waits until a center has an agent again. The kubelet waits longer each
// time, up to five minutes; the cluster counts as heard for a lease after a kill.
func (n noise) agentsRun(ctx context.Context, center string) error {
	return n.fleet.await(ctx, 6*time.Minute, "an agent runs again in "+center, func(ctx context.Context) (string, error) {
		status, err := n.fleet.Lab.Status(ctx)
		if err != nil {
			return "", err
		}
		for _, c := range status.Centers {
			if c.Name == center && slices.ContainsFunc(c.Processes, func(p lab.ProcessStatus) bool { return p.Name == "agent" && p.State == lab.Running }) {
				return "", nil
			}
		}
		return "none does", nil
	})
}

func (n noise) pause(ctx context.Context) error {
	processes := []string{"hub", "agent", "guard", "postgres", "apiserver", "kubelet"}
	victim := fault.Fault{Kind: fault.Stop, Process: processes[n.random.IntN(len(processes))], Center: n.center()}
	if _, err := n.fleet.Inject(ctx, victim); err != nil {
		return err
	}
	err := n.fleet.outlive(ctx, 3*time.Second)
	victim.Kind = fault.Cont
	_, undo := n.fleet.Inject(context.WithoutCancel(ctx), victim)
	return errors.Join(err, undo)
}
