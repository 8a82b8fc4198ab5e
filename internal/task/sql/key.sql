SELECT key FROM public.replay_key
