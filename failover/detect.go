package failover

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
)

// Class is what a cluster's silence means (safety.md section 8).
type Class string

// Classes. Only Lost may lead to an automatic action.
const (
	Healthy      Class = "Healthy"
	Unobservable Class = "Unobservable" // heard, but its agent cannot observe
	Silent       Class = "Silent"       // not heard, not yet or not surely lost
	Lost         Class = "Lost"         // silent past the lease, from enough centers
)

// Loss is one cluster's loss.
type Loss struct {
	Cluster, Center string
	// At is when the lease ran out, on the leader's monotonic clock.
	At time.Duration
}

// Detection is the classified fleet. The leader keeps the last one and hands it
// to the next Detect: it remembers losses that healed within the window.
type Detection struct {
	Classes map[string]Class
	Reasons map[string]string
	// Losses that are present or began within the breaker window.
	Losses []Loss
	// Breaker is why no automatic action is taken, or empty.
	Breaker string
	// Waiting is why a loss is not acted upon yet, or empty: a cluster of
	// another center is silent too.
	Waiting string
}

// Detect classifies the fleet at uptime (the leader's monotonic clock). Losses that
// healed within the window are known from prev, and from the book of leases if
// another member led then.
func Detect(c Config, prev Detection, f Fleet, uptime time.Duration) Detection {
	d := Detection{Classes: map[string]Class{}, Reasons: map[string]string{}}
	silent := map[string][]string{} // center -> clusters
	for _, cl := range f.Clusters {
		class, reason := classify(c, f, cl)
		d.Classes[cl.Name], d.Reasons[cl.Name] = class, reason
		if class == Silent {
			silent[cl.Center] = append(silent[cl.Center], cl.Name)
		}
		// A silence past the lease that too few centers can confirm is no reason
		// to act on that cluster, but it is one not to act on another.
		if class == Lost || class == Silent && f.Sightings[cl.Name].LeaseOver && f.says(c, cl) {
			d.Losses = append(d.Losses, loss(prev, cl, f.Sightings[cl.Name], uptime))
		}
	}
	for _, l := range prev.Losses {
		if !d.counts(l.Cluster) && uptime-l.At < c.BreakerWindow {
			d.Losses = append(d.Losses, l)
		}
	}
	for _, cl := range f.Clusters {
		s := f.Sightings[cl.Name]
		if s.Lapsed > 0 && s.Lapsed < c.BreakerWindow && !d.counts(cl.Name) {
			d.Losses = append(d.Losses, Loss{Cluster: cl.Name, Center: cl.Center, At: uptime - s.Lapsed})
		}
	}
	d.Breaker = breaker(c, d.Losses)
	d.Waiting = waiting(d.Losses, d.Classes, silent)
	return d
}

// classify judges one cluster. Sightings of hub members whose report is old are
// not used: a member that cannot be heard sees nothing.
func classify(c Config, f Fleet, cl Cluster) (Class, string) {
	s := f.Sightings[cl.Name]
	missing := map[string]bool{}
	for _, m := range f.Members {
		if m.Reported > c.VantageAge {
			continue
		}
		age, ever := s.HeardBy[m.Name]
		if ever && age <= c.Suspect {
			if s.Unobservable != "" {
				return Unobservable, s.Unobservable
			}
			return Healthy, ""
		}
		if m.Center != cl.Center {
			missing[m.Center] = true
		}
	}
	if s.Silent <= c.Suspect && !s.LeaseOver {
		return Healthy, ""
	}
	if !s.LeaseOver {
		return Silent, fmt.Sprintf("not heard for %v; its lease still runs", s.Silent.Round(100*time.Millisecond))
	}
	if !f.watched(c) {
		return Silent, "its lease is over, but this leader has not watched for long enough to tell a loss from an outage of the hub, or who else is silent"
	}
	if len(missing) < c.VantageCenters {
		return Silent, fmt.Sprintf("its lease is over, but only %d of %d centers other than %s can confirm that it is gone",
			len(missing), c.VantageCenters, cl.Center)
	}
	return Lost, fmt.Sprintf("its lease is over and hub members in %s do not hear it", strings.Join(sortedKeys(missing), ", "))
}

// loss keeps the instant of a loss that was known before, so that it does not
// drift with each turn.
func loss(prev Detection, cl Cluster, s Sighting, uptime time.Duration) Loss {
	if c := prev.Classes[cl.Name]; c == Lost || c == Silent {
		for _, l := range prev.Losses {
			if l.Cluster == cl.Name {
				return l
			}
		}
	}
	// The instant of the last renewal orders losses as well as that of the
	// lease's end, and is known to a new leader too.
	return Loss{Cluster: cl.Name, Center: cl.Center, At: uptime - s.Silent}
}

// breaker opens when two centers have losses that began within the window.
func breaker(c Config, losses []Loss) string {
	sort.Slice(losses, func(i, j int) bool {
		if losses[i].At != losses[j].At {
			return losses[i].At < losses[j].At
		}
		return losses[i].Cluster < losses[j].Cluster
	})
	for i, a := range losses {
		for _, b := range losses[i+1:] {
			if a.Center != b.Center && b.At-a.At < c.BreakerWindow {
				return fmt.Sprintf("clusters %s (%s) and %s (%s) were lost within %v: no automatic action is taken, a person decides",
					a.Cluster, a.Center, b.Cluster, b.Center, c.BreakerWindow)
			}
		}
	}
	return ""
}

func waiting(losses []Loss, classes map[string]Class, silent map[string][]string) string {
	for _, l := range losses {
		if classes[l.Cluster] != Lost {
			continue
		}
		for _, center := range sortedKeys(silent) {
			if center != l.Center {
				return fmt.Sprintf("cluster %s is lost, but %s in center %s is silent too: waiting until it is heard or lost",
					l.Cluster, strings.Join(silent[center], ", "), center)
			}
		}
	}
	return ""
}

// counts is true when a cluster is among the losses already.
func (d Detection) counts(cluster string) bool {
	return slices.ContainsFunc(d.Losses, func(l Loss) bool { return l.Cluster == cluster })
}

// Automatic is true when the engine may act on losses without a person.
func (d Detection) Automatic() bool { return d.Breaker == "" && d.Waiting == "" }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
