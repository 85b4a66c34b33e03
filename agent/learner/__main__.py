"""`python -m agent.learner`: the learner process, started by the server."""

from agent.learner.main import main

if __name__ == "__main__":
    main()
