package sim

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seeds     = flag.Uint64("seeds", 2000, "schedules to play")
	first     = flag.Uint64("first", 1, "the first schedule")
	seed      = flag.Uint64("seed", 0, "play this one schedule and print it")
	bug       = flag.Int("bug", 0, "with -seed: the planted bug")
	withPlans = flag.Bool("plans", false, "with -seed: plans, hooks and drills")
	onPledges = flag.Bool("pledges", false, "with -seed: agents live on pledges")
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(800) // thousands of small worlds, each soon forgotten
	m.Run()
}

// judge plays n seeds and counts those that break an invariant; it gives up after 20.
// The first five are errors, with what replays them. add takes each result.
func judge(t *testing.T, n uint64, opt Options, add func(Result)) (failed int) {
	t.Helper()
	flags := ""
	if opt.Plans {
		flags += " -plans"
	}
	if opt.Pledges {
		flags += " -pledges"
	}
	play(n, opt, func(r Result) bool {
		add(r)
		if len(r.Violations) > 0 {
			failed++
			if failed <= 5 {
				t.Errorf("seed %d (replay: go test ./failover/sim -run TestReplay -seed %d%s -v):\n  %s", r.Seed, r.Seed, flags, strings.Join(r.Violations, "\n  "))
			}
		}
		return failed > 20
	})
	return failed
}

// play runs n seeds from -first on in parallel until stop says so, and returns the results
// in any order.
func play(n uint64, opt Options, stop func(Result) bool) {
	var next atomic.Uint64
	var done atomic.Bool
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !done.Load() {
				s := next.Add(1)
				if s > n {
					return
				}
				o := opt
				o.Seed = *first + s - 1
				r := Run(o)
				mu.Lock()
				if stop(r) {
					done.Store(true)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestTheInvariantsHold(t *testing.T) {
	n := *seeds
	if testing.Short() {
		n = 200
	}
	var promotions, runs, acknowledged, elections, switchovers, returns, failbacks, instead, taken int
	failed := judge(t, n, Options{}, func(r Result) {
		promotions, runs, acknowledged, elections = promotions+r.Promotions, runs+r.Runs, acknowledged+r.Acknowledged, elections+r.Elections
		switchovers, returns, failbacks = switchovers+r.Switchovers, returns+r.Returns, failbacks+r.Failbacks
		instead, taken = instead+r.Instead, taken+r.Taken
	})
	t.Logf("%d schedules: %d runs, %d promotions, %d elections, %d switchovers (%d home), %d returned, %d ordered instead (%d took over), %d acknowledged writes",
		n, runs, promotions, elections, switchovers, failbacks, returns, instead, taken, acknowledged)
	if failed == 0 && (runs < int(n)/4 || promotions < int(n)*5/4 || elections < int(n)*5/4 || switchovers < int(n)/10 || returns < int(n)/10 || failbacks < int(n)/20 || taken < int(n)/100) {
		t.Errorf("the schedules do not bite: %d runs, %d promotions, %d elections, %d switchovers, %d returned, %d taken in %d schedules",
			runs, promotions, elections, switchovers, returns, taken, n)
	}
}

// Where nothing is wrong a switchover is done, and its pause is what the modelled
// agents take: up to 0.6 s to close, 0.3 to catch up, 0.3 to fence, 0.1 to open, and
// for the promotion, which they try until a tick has brought the grant, 3.5.
func TestASwitchoverInAQuietFleetIsShort(t *testing.T) {
	longest := time.Duration(0)
	for s := uint64(1); s <= 100; s++ {
		r := Run(Options{Seed: s, Quiet: true})
		if r.Switchovers != 1 || r.Returns != 0 || len(r.Violations) > 0 || r.Pause > 5*time.Second {
			t.Errorf("seed %d: %d done, %d returned, pause %v, %v", s, r.Switchovers, r.Returns, r.Pause, r.Violations)
		}
		longest = max(longest, r.Pause)
	}
	t.Logf("the longest pause was %v", longest)
}

// S7: ten minutes of links that flap move the role once at most.
func TestFlappingLinksMoveTheRoleOnce(t *testing.T) {
	moved := 0
	for s := uint64(1); s <= 8; s++ {
		r := Run(Options{Seed: s, Flap: true})
		if r.Promotions > 2 || len(r.Violations) > 0 {
			t.Errorf("seed %d: %d promotions with the first formation, %v", s, r.Promotions, r.Violations)
		}
		moved += r.Promotions - 1
	}
	if moved == 0 {
		t.Error("no flap moved anything: the schedules do not bite")
	}
	bug := 0
	for s := uint64(1); s <= 8 && bug <= 2; s++ {
		bug = max(bug, Run(Options{Seed: s, Flap: true, Bug: HoldIgnored}).Promotions)
	}
	if bug <= 2 {
		t.Error("without holds the role moves no more often: the schedules do not bite")
	}
}

func TestEveryPlantedBugIsFound(t *testing.T) {
	for b := None + 1; b < bugs; b++ {
		t.Run(b.String(), func(t *testing.T) { findBug(t, Options{Bug: b}) })
	}
}

func findBug(t *testing.T, opt Options) {
	const within = 1000
	found, tried := "", 0
	play(within, opt, func(r Result) bool {
		tried++
		for _, v := range r.Violations {
			if !strings.HasPrefix(v, "liveness") && found == "" {
				found = fmt.Sprintf("seed %d: %s", r.Seed, v)
			}
		}
		return found != ""
	})
	if found == "" {
		t.Fatalf("not found in %d schedules", within)
	}
	t.Logf("after %d schedules, %s", tried, found)
}

func TestOneSeedIsOneSchedule(t *testing.T) {
	for s := uint64(1); s <= 3; s++ {
		var a, b strings.Builder
		Run(Options{Seed: s, Trace: func(l string) { a.WriteString(l + "\n") }})
		Run(Options{Seed: s, Trace: func(l string) { b.WriteString(l + "\n") }})
		if a.String() != b.String() || a.Len() == 0 {
			t.Fatalf("seed %d played two different schedules", s)
		}
	}
}

func TestReplay(t *testing.T) {
	if *seed == 0 {
		t.Skip("give -seed N to replay one schedule")
	}
	r := Run(Options{Seed: *seed, Bug: Bug(*bug), Pledges: *onPledges, Plans: *withPlans, Trace: func(l string) { t.Log(l) }})
	for _, v := range r.Violations {
		t.Error(v)
	}
}
