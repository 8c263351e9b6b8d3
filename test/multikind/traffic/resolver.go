package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Resolver asks the hub members' DNS servers as the stub resolver of any host
// does with several nameservers and "options rotate": each question starts at
// the next server, and a server that does not answer is passed over. Rotating
// matters when one member is cut off and still tells what it knew.
type Resolver struct {
	// Servers are HOST:PORT.
	Servers []string
	// Timeout bounds one server's answer.
	Timeout time.Duration

	asked atomic.Uint32
}

// ErrNoAddress means that a server answered and the name leads nowhere now.
var ErrNoAddress = errors.New("the name has no address now")

// Resolve returns the first address of host.
func (r *Resolver) Resolve(ctx context.Context, host string) (string, error) {
	var last error
	start := int(r.asked.Add(1))
	for i := range r.Servers {
		address, err := r.ask(ctx, r.Servers[(start+i)%len(r.Servers)], host)
		if err == nil {
			return address, nil
		}
		last = err
	}
	return "", fmt.Errorf("resolve %s: %w", host, last)
}

func (r *Resolver) ask(ctx context.Context, server, host string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn(host), dns.TypeA)
	client := dns.Client{Timeout: r.Timeout}
	answer, _, err := client.ExchangeContext(ctx, question, server)
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", server, err)
	}
	for _, rr := range answer.Answer {
		if a, ok := rr.(*dns.A); ok {
			return a.A.String(), nil
		}
	}
	return "", fmt.Errorf("ask %s: %w (%s)", server, ErrNoAddress, dns.RcodeToString[answer.Rcode])
}

// endpoint resolves host and joins the port.
func (r *Resolver) endpoint(ctx context.Context, host string, port string) (string, error) {
	address, err := r.Resolve(ctx, host)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(address, port), nil
}
