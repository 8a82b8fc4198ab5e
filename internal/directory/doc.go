// Package directory looks up users and companies: whose user it is, which tier and limits apply, and whether the
// subscription is paid for. The truth is in Postgres; the directory answers from the process' own memory, then from
// Dragonfly, then from Postgres, and learns of changes from a feed within a second.
//
//	d := directory.New(directory.Config{Loader: store, Cache: dragonfly.NewCache(client), Log: log})
//	go d.Run(ctx) // follows the changes, until ctx is done
//	defer d.Close()
//	subs := make([]*directory.Subscription, len(users))
//	err = d.Resolve(ctx, users, subs)
//	sub, err := d.User(ctx, "u-1")
//	sub, err = d.UserIn(ctx, "u-1", grant) // for a caller who may know of some companies only
//
// A consumer that counts usage asks ResolveMembers and BelongedTo whose a user was at the usage's time, AppliedThrough whether that is
// final, and passes what was counted to ShowUse.
package directory
