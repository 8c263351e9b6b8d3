package gateway

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"tripod.dev/tripod/test/bench/report"
	"tripod.dev/tripod/test/multikind/center/pki"
)

// besideRemotedialer measures one tunnel beside Rancher's, a program of its own
// (test/bench/remotedialer) that carries the same answers.
func (c Config) besideRemotedialer(ctx context.Context, e *end, through *http.Client) error {
	if !c.Wants(rowBandwidthPeer) && !c.Wants(rowStalledPeer) {
		return nil
	}
	program := filepath.Join(c.BinDir, "remotedialer")
	if _, err := os.Stat(program); err != nil {
		return fmt.Errorf("the peer %s is not there: `make bench-gateway` builds it: %w", program, err)
	}
	folder := filepath.Join(e.folder, "remotedialer")
	pair, err := e.authority.Issue("remotedialer", pki.Request{CommonName: "remotedialer", Hosts: []string{"127.0.0.1"}})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("make the peer's folder: %w", err)
	}
	for name, text := range map[string][]byte{"ca.crt": e.authority.Certificate, "tls.crt": pair.Certificate, "tls.key": pair.Key} {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			return fmt.Errorf("write the peer's certificate: %w", err)
		}
	}
	peer := func(what string) way {
		return way{"remotedialer", func(ctx context.Context) (float64, error) {
			said, err := exec.CommandContext(ctx, program, what, c.Duration.String(), folder).Output()
			if err != nil {
				return 0, fmt.Errorf("%s %s: %w", program, what, err)
			}
			return strconv.ParseFloat(strings.TrimSpace(string(said)), 64)
		}}
	}
	if c.Wants(rowBandwidthPeer) {
		err := c.run(ctx, rowBandwidthPeer, "MB/s", report.Higher,
			way{"tripod", func(ctx context.Context) (float64, error) { return c.bandwidth(ctx, through, "http://cluster-0000") }}, peer("bandwidth"))
		if err != nil {
			return err
		}
	}
	if !c.Wants(rowStalledPeer) {
		return nil
	}
	return c.run(ctx, rowStalledPeer, "µs", report.Lower,
		way{"tripod", func(ctx context.Context) (float64, error) { return c.stalled(ctx, through) }}, peer("stalled"))
}
