package scenario

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// gauge reads one of the metrics of a center's hub member: its name, with its labels.
func (f *Fleet) gauge(ctx context.Context, center, name string) (float64, error) {
	all, err := f.metrics(ctx, center)
	if err != nil {
		return 0, err
	}
	value, told := all[name]
	if !told {
		return 0, fmt.Errorf("the member of %s has no metric %s", center, name)
	}
	return value, nil
}

// metrics reads those of a center's hub member, by their names with their labels.
func (f *Fleet) metrics(ctx context.Context, center string) (map[string]float64, error) {
	server := "https://" + net.JoinHostPort(f.address(center), "6443")
	text, err := f.Kubectl(ctx, nil, "--context", "hub", "--server", server, "--request-timeout", "3s", "get", "--raw", "/metrics")
	if err != nil {
		return nil, err
	}
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		end := strings.LastIndexByte(line, ' ')
		if end < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if all[line[:end]], err = strconv.ParseFloat(line[end+1:], 64); err != nil {
			return nil, fmt.Errorf("the member of %s says %q: %w", center, line, err)
		}
	}
	return all, nil
}

// recentLosses is what the leader tells of the clusters of a center.
func recentLosses(center string) string {
	return fmt.Sprintf("tripod_failover_recent_losses{center=%q}", center)
}

// AwaitNoLossBeside waits until the loss of a center would not open the breaker: for a
// minute after another one was lost, people decide.
func (f *Fleet) AwaitNoLossBeside(ctx context.Context, center string) error {
	return f.await(ctx, 2*time.Minute, "no other center than "+center+" counts as lost", func(ctx context.Context) (string, error) {
		leads := false
		for _, member := range f.Lab.Centers() {
			all, err := f.metrics(ctx, member.Name)
			if err != nil {
				return "", err
			}
			for _, c := range f.Lab.Centers() {
				n, told := all[recentLosses(c.Name)]
				leads = leads || told
				if n > 0 && c.Name != center {
					return fmt.Sprintf("%g clusters of %s were lost within the last minute", n, c.Name), nil
				}
			}
		}
		if !leads {
			return "no member of the hub tells", nil
		}
		return "", nil
	})
}

func (f *Fleet) address(center string) string {
	for _, c := range f.Lab.Centers() {
		if c.Name == center {
			return c.Address.String()
		}
	}
	return ""
}
