package rpc

import (
	"cmp"
	"context"
	"slices"
	"sync"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// Certificates implements hubv1.AdminServer: every member tells of its own, and of a
// certificate that several were shown the last word counts.
func (a *Admin) Certificates(ctx context.Context, request *hubv1.CertificatesRequest) (*hubv1.CertificatesResponse, error) {
	if err := a.config.Authorizer.Authorize(ctx, "get"); err != nil {
		return nil, err
	}
	local := a.config.Certificates()
	for _, c := range local {
		c.Member = a.config.Self
	}
	answer := &hubv1.CertificatesResponse{Certificates: local}
	if request.GetLocal() {
		return answer, nil
	}
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, m := range a.config.Store.Members() {
		if m.GetName() == a.config.Self {
			continue
		}
		asking.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, memberTimeout)
			defer cancel()
			said, err := call(a, m, func(c hubv1.AdminClient) (*hubv1.CertificatesResponse, error) {
				return c.Certificates(ctx, &hubv1.CertificatesRequest{Local: true})
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				answer.Silent = append(answer.Silent, m.GetName())
				return
			}
			answer.Certificates = append(answer.Certificates, said.GetCertificates()...)
		})
	}
	asking.Wait()
	answer.Certificates = newest(answer.GetCertificates())
	slices.Sort(answer.Silent)
	return answer, nil
}

// newest drops what others have said earlier, or less directly, of the same
// certificate: members have a CA and an administrator's certificate each.
func newest(all []*hubv1.Certificate) []*hubv1.Certificate {
	own := map[string]bool{}
	last := map[string]*hubv1.Certificate{}
	for _, c := range all {
		if c.GetShown() == 0 {
			own[c.GetName()] = true
		} else if have := last[c.GetName()]; have.GetShown() <= c.GetShown() {
			last[c.GetName()] = c
		}
	}
	all = slices.DeleteFunc(all, func(c *hubv1.Certificate) bool {
		return c.GetShown() != 0 && (own[c.GetName()] || last[c.GetName()] != c)
	})
	slices.SortFunc(all, func(x, y *hubv1.Certificate) int {
		return cmp.Or(cmp.Compare(x.GetNotAfter(), y.GetNotAfter()), cmp.Compare(x.GetName(), y.GetName()), cmp.Compare(x.GetMember(), y.GetMember()))
	})
	return all
}
