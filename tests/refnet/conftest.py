import sys
from pathlib import Path

# The networks of these tests are shared by plain import, also by the processes that the tests start.
sys.path.insert(0, str(Path(__file__).parent))
