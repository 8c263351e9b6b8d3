package session

import (
	"context"
	"fmt"
	"strings"
	"sync"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// pending correlates results with the directives that wait for them.
type pending struct {
	mu    sync.Mutex
	calls map[callKey]*call
}

type callKey struct{ cluster, id string }

type call struct {
	done    chan struct{}
	result  *agentv1.DirectiveResult // set before done is closed
	waiters int
}

func newPending() *pending { return &pending{calls: map[callKey]*call{}} }

// join returns the call of a directive; fresh is true for the first waiter, who
// sends it. Every join needs a leave.
func (p *pending) join(key callKey) (c *call, fresh bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c = p.calls[key]
	if c == nil {
		c = &call{done: make(chan struct{})}
		p.calls[key] = c
	}
	c.waiters++
	return c, c.waiters == 1
}

func (p *pending) leave(key callKey, c *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.waiters--
	if c.waiters == 0 && p.calls[key] == c {
		delete(p.calls, key)
	}
}

func (p *pending) resolve(cluster string, result *agentv1.DirectiveResult) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := callKey{cluster, result.GetId()}
	if c := p.calls[key]; c != nil {
		c.result = result
		delete(p.calls, key)
		close(c.done)
	}
}

// Direct carries a directive to the active replica of cluster, through this
// member's session or, when it has none, through another member's, and waits
// for the result. The outcome is UNREACHABLE when no member hears the active
// replica or when it was lost meanwhile: the work may have been done, and the
// same directive, with the same id, may be sent again. An error means that ctx
// ended or that the directive has no id.
func (s *Server) Direct(ctx context.Context, cluster string, directive *agentv1.Directive) (*agentv1.DirectiveResult, error) {
	if directive.GetId() == "" {
		return nil, fmt.Errorf("directive to cluster %q has no id: set RUN/STEP/ATTEMPT", cluster)
	}
	result := s.directHere(ctx, cluster, directive)
	if result.GetOutcome() != agentv1.Outcome_OUTCOME_UNREACHABLE {
		return result, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("wait for directive %s of cluster %q: %w", directive.GetId(), cluster, err)
	}
	return s.directElsewhere(ctx, cluster, directive, result)
}

// directHere uses only this member's own session.
func (s *Server) directHere(ctx context.Context, cluster string, directive *agentv1.Directive) *agentv1.DirectiveResult {
	session, retired := s.registry.active(cluster)
	if session == nil {
		return unreachable(directive, fmt.Sprintf("member %s hears no active agent of cluster %s", s.config.Name, cluster))
	}
	key := callKey{cluster, directive.GetId()}
	c, fresh := s.pending.join(key)
	defer s.pending.leave(key, c)
	if fresh && !session.out.putDirective(directive) {
		return unreachable(directive, fmt.Sprintf("the agent of cluster %s does not take directives from member %s: %d wait", cluster, s.config.Name, directiveBacklog))
	}
	s.metrics.directives.WithLabelValues(cluster, directive.GetVerb().String()).Inc()
	select {
	case <-c.done:
		return c.result
	case <-session.done:
		return unreachable(directive, fmt.Sprintf("the session of cluster %s with member %s ended before the result came", cluster, s.config.Name))
	case <-retired: // it may be unable to end what it began: the one that is active now is asked
		return unreachable(directive, fmt.Sprintf("replica %s of the agent of cluster %s stopped being the active one before the result came", session.replica, cluster))
	case <-ctx.Done():
		return unreachable(directive, fmt.Sprintf("no result from cluster %s in time", cluster))
	}
}

// directElsewhere asks all other members at once; agents do a directive once
// however often it comes.
func (s *Server) directElsewhere(ctx context.Context, cluster string, directive *agentv1.Directive, here *agentv1.DirectiveResult) (*agentv1.DirectiveResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	names := s.peers.names()
	results := make(chan *agentv1.DirectiveResult, len(names))
	var asked sync.WaitGroup
	defer asked.Wait()
	defer cancel()
	for _, member := range names {
		asked.Go(func() { results <- s.directThrough(ctx, member, cluster, directive) })
	}
	reasons := []string{here.GetMessage()}
	for range names {
		result := <-results
		if result.GetOutcome() != agentv1.Outcome_OUTCOME_UNREACHABLE {
			return result, nil
		}
		reasons = append(reasons, result.GetMessage())
	}
	return unreachable(directive, strings.Join(reasons, "; ")), nil
}

func (s *Server) directThrough(ctx context.Context, member, cluster string, directive *agentv1.Directive) *agentv1.DirectiveResult {
	client, err := s.peers.client(member)
	if err != nil {
		return unreachable(directive, err.Error())
	}
	response, err := client.Direct(ctx, &hubv1.DirectRequest{Cluster: cluster, Directive: directive})
	if err != nil {
		return unreachable(directive, fmt.Sprintf("through member %s: %v", member, err))
	}
	return response.GetResult()
}

func unreachable(directive *agentv1.Directive, message string) *agentv1.DirectiveResult {
	return &agentv1.DirectiveResult{Id: directive.GetId(), Outcome: agentv1.Outcome_OUTCOME_UNREACHABLE, Message: message}
}

// Direct of the Peer service: for another member, by this member's own session
// only, so that no directive goes in circles.
func (p peerService) Direct(ctx context.Context, request *hubv1.DirectRequest) (*hubv1.DirectResponse, error) {
	if _, err := p.server.memberOf(ctx); err != nil {
		return nil, err
	}
	return &hubv1.DirectResponse{Result: p.server.directHere(ctx, request.GetCluster(), request.GetDirective())}, nil
}
