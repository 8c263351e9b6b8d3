// Package memberagent is Tripod's process inside a member cluster: it joins the
// hub, keeps sessions and tunnels to every hub member, and hands what comes
// through them to the applier, the reporter and the effector.
package memberagent
