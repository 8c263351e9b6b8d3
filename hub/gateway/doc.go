// Package gateway routes every request of the one door: to the hub's own API,
// to one cluster (/clusters/NAME/…), to the cluster where an application is
// active (/applications/NAMESPACE/NAME/…) or to the view (/fleet/…).
//
// It sits inside the API server's filters, which have authenticated, authorized
// and audited a request before it is routed. What they judge is what Resolver
// makes of the URL, so Resolver and Handler read it with the same function.
package gateway
